"""What the paper rules are told: which experiments exist, what was expected of each, and the settings."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract, Distinct

Method = Literal["sdtp", "dynatree"]
Level = Literal["same", "up", "up_strong", "down", "down_strong", "unstable", "crash"]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
Identifiers = Annotated[tuple[Identifier, ...], Distinct]
GridName = Literal["trees", "lengths"]


class Expectation(Contract):
    """What a hypothesis predicts of the effect; a field left null predicts nothing."""

    quality: Level | None = None
    """Predicted effect on quality (`down`: the NLL rises)."""
    speed: Level | None = None
    """Predicted effect on speed (`up`: faster)."""
    above: Identifiers = ()
    """Experiments whose speed-up this one exceeds."""
    below: Identifiers = ()
    """Experiments whose speed-up exceeds this one's."""
    about: Identifiers = ()
    """Experiments whose speed-up this one equals within the margin."""
    less_traffic: Identifiers = ()
    """Experiments that send more bytes over the pipeline's boundaries than this one."""


class Experiment(Contract):
    """One row of the study as the paper sees it."""

    id: Identifier
    """Id in the configuration."""
    method: Method
    """Which method it belongs to."""
    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    change: dict[str, Any]
    """What differs from the baseline; empty for the baseline."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts."""
    versus: Identifier | None
    """Experiment the effect is measured against; null for the baseline and for the first row."""
    records: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths of its records, relative to the working directory, one per seed; only the first is timed."""
    budget: dict[str, Any] = Field(default={})
    """Where its budget differs from the method's (fewer prompts, say)."""


class Thresholds(Contract):
    """Where `same` ends and `strong` begins."""

    quality_same: PositiveFloat = 0.05
    """Largest |difference of NLL| (nats per token) that counts as the same quality."""
    quality_strong: PositiveFloat = 0.3
    """Smallest |difference of NLL| (nats per token) that counts as a strong effect."""
    speed_same: Annotated[float, Field(gt=1.0)] = 1.05
    """Largest ratio of speed-ups (either way) that counts as the same speed."""
    speed_strong: Annotated[float, Field(gt=1.0)] = 1.5
    """Smallest ratio of speed-ups (either way) that counts as a strong effect."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Family-wise error rate; intervals cover 1 - alpha."""


class PaperSettings(Contract):
    """How the section is written."""

    heading: Literal["section", "subsection"] = "section"
    """LaTeX level of the section's own heading; its parts are one level below."""
    width: Literal["full", "column"] = "full"
    """Width of the main tables (design matrix, forward, backward): all columns of a page, or one of two."""
    provenance: bool = False
    """Whether the margin of the PDF links each experiment to its records."""
    main: Identifiers = ()
    """Rows of the main SDTP table, in order (others follow in a second one); empty puts every row there."""
    forward: Identifiers = ()
    """Rows of the forward decoding table, in order; each is compared with its `versus`."""
    backward: Identifiers = ()
    """Rows of the backward decoding table, in order; each is compared with the full method."""
    full_method: Identifier = "F4"
    """Decoding experiment that is the full method (bold in tables)."""
    thresholds: Thresholds = Thresholds()
    """How large an effect must be to count."""
    mix_devices: bool = False
    """Allow times of different devices in one table, marked and never compared; otherwise an error."""
    resamples: PositiveInt = 9999
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Seed of the bootstrap."""


class PaperPlan(Contract):
    """Stamp of the `collect` rule: all that decides what is in the paper, short of the records."""

    study: str
    """Name of the study."""
    settings: PaperSettings
    """How the section is written."""
    experiments: tuple[Experiment, ...]
    """Every experiment, in the order of the configuration; the SDTP baseline has the id `baseline`."""
    models: dict[str, str]
    """What the paper calls each model in use, by role (`sdtp`, `dynatree`)."""
    sources: dict[str, str] = Field(default={})
    """Where the models in use are from, by role: a name on the hub, or a folder; others are left out."""
    texts: dict[str, str]
    """What the paper calls each text in use, by role (`sdtp`, and each kind of decoding prompts)."""
    manifests: dict[str, str] = Field(default={})
    """Paths of the manifests of the models in use, by role (`sdtp`, `dynatree`)."""
    saliency: str | None = None
    """Path of the manifest of the saliency that the baseline's scorer learns; null for another importance."""
    sweeps: tuple[str, ...] = ()
    """Paths of the prompt-length sweeps, relative to the working directory."""
    grids: dict[GridName, str] = Field(default={})
    """Paths of the replayed grids, relative to the working directory."""
    code: str
    """Digest of the meaning of the code of the `collect` rule."""
    revision: int = 0
    """Counts how often a lost record made the paper stale; nothing is computed from it."""
    lost: tuple[str, ...] = ()
    """The records that were lost then; nothing is computed from them."""
