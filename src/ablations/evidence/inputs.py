"""What the paper's rules are told: which experiments exist, where their records lie, and the settings."""

from typing import Literal

from pydantic import Field, PositiveInt

from ablations.core.contract import Contract, Identifier, Identifiers
from ablations.evidence.expectations import Experiment, Thresholds
from ablations.evidence.statistics import Resampling

GridName = Literal["trees", "lengths"]


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


class PaperInput(Contract):
    """Stamp of the `collect` rule: all that the contents of the paper depend on, except the records."""

    study: str
    """Name of the study."""
    settings: PaperSettings
    """How the section is written."""
    experiments: tuple[Experiment, ...]
    """Every experiment, in the order of the configuration; the SDTP baseline has the id `baseline`."""
    models: dict[str, str]
    """What the paper calls each model in use, by role (`sdtp`, `dynatree`)."""
    sources: dict[str, str] = Field(default={})
    """Name on the hub or folder of the models in use, by role; models of other sources are left out."""
    texts: dict[str, str]
    """What the paper calls each text in use, by role (`sdtp`, and each kind of decoding prompts)."""
    manifests: dict[str, str] = Field(default={})
    """Paths of the manifests of the models in use, by role (`sdtp`, `dynatree`)."""
    saliency: str | None = None
    """Manifest of the saliency that the baseline's scorer is trained on; null for another importance."""
    sweeps: tuple[str, ...] = ()
    """Paths of the prompt-length sweeps, relative to the working directory."""
    grids: dict[GridName, str] = Field(default={})
    """Paths of the replayed grids, relative to the working directory."""
    code: str
    """Digest of the meaning of the code of the `collect` rule."""
    revision: int = 0
    """How often a lost record made the paper stale; nothing is computed from it."""
    lost: tuple[str, ...] = ()
    """Records that were lost the last time; nothing is computed from them."""


class BenchmarkInput(Contract):
    """Stamp of the `benchmark_table` rule: all that its table depends on, except the record."""

    study: str
    """Name of the study."""
    record: str
    """Path of the record."""
    arms: dict[str, Identifier]
    """Experiment that each arm of the record stands for, in the order of the study."""
    titles: dict[str, str]
    """What tables call each arm of the study."""
    best_of: Identifiers
    """Arms of which the fastest stands for the method."""
    resampling: Resampling
    """How intervals are resampled, as in the study's tables."""
    code: str
    """Digest of the meaning of the rule's code."""
    revision: int = 0
    """How often a lost record made the table stale; nothing is computed from it."""
    lost: tuple[str, ...] = ()
    """Records that were lost the last time; nothing is computed from them."""


def resampling(settings: PaperSettings) -> Resampling:
    """How the paper's intervals are resampled."""
    return Resampling(alpha=settings.thresholds.alpha, resamples=settings.resamples, seed=settings.seed)
