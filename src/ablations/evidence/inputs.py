"""What the paper's rules are told: which experiments exist, where their records lie, and the settings."""

from typing import Literal

from pydantic import Field

from ablations.core.contract import Contract, Identifier, Identifiers
from ablations.evidence.expectations import Confirmatory, Experiment, Look, Thresholds

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
    confirmatory: Confirmatory = Confirmatory()
    """Experiments whose predictions are decided together; all others are exploratory. They have the whole
    budget of documents, prompts and seeds."""
    looks: tuple[Look, ...] = ()
    """Declared looks at growing data; empty decides once, on all that is measured, at `thresholds.alpha`."""
    thresholds: Thresholds = Thresholds()
    """How large an effect must be to count."""
    mix_devices: bool = False
    """Allow times of different devices in one table, marked and never compared; otherwise an error."""


class FamilyPlan(Contract):
    """When the confirmatory family was planned."""

    digest: str
    """Digest of its experiments, predictions, thresholds, looks, counts and seeds as they are."""
    planned: str
    """Date on which its plan was written down, before its first results; ISO 8601."""
    changed: tuple[str, ...] = ()
    """What has changed since, one clause each; empty where it is as it was planned."""


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
    family: FamilyPlan | None = None
    """Plan of the confirmatory family; null without one."""
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
    alpha: float
    """Intervals cover 1 - alpha, as in the study's tables."""
    code: str
    """Digest of the meaning of the rule's code."""
    revision: int = 0
    """How often a lost record made the table stale; nothing is computed from it."""
    lost: tuple[str, ...] = ()
    """Records that were lost the last time; nothing is computed from them."""
