"""Configuration of a whole study."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from ablations.core.contract import Contract
from ablations.evidence.inputs import PaperSettings
from ablations.specs.lm import ModelSource, TextSource
from ablations.study.config.dynatree import DynatreeConfig
from ablations.study.config.experiment import Name
from ablations.study.config.sdtp import SdtpConfig


class Resources(Contract):
    """What jobs ask of a scheduler; no result depends on it."""

    gpu: NonNegativeInt = 0
    """GPUs of a job that runs a model (0 on machines without; a GPU found at run time is used anyway)."""
    mem_mb: PositiveInt | None = None
    """Memory of a job, of each of its ranks, MiB; null: from its work and the size of the model."""
    runtime: PositiveInt = 720
    """Longest time limit of a job, minutes (a scheduler's; local runs have none). Jobs ask for less where
    their spec and the size of the model let them."""
    exclusive: bool = True
    """Ask Slurm for a whole node for a job that measures times on the CPU; false where a site forbids it."""


class PanelSettings(Contract):
    """How measurements share processes; no result depends on it."""

    documents: PositiveInt = 10
    """Documents or prompts of a block: what a kill loses at most."""
    experiments: PositiveInt | None = None
    """Most experiments that are measured side by side in one process; null: all of a kind. Fewer spread over
    the machines of a cluster."""


class StudyConfig(Contract):
    """One study: models, texts, one block per method, and how the paper is written."""

    study: str = "default"
    """Name of the study, as the paper and records call it."""
    seed: int = 0
    """Seed of the order and the split of texts."""
    resources: Resources = Resources()
    """What jobs ask of a scheduler."""
    panel: PanelSettings = PanelSettings()
    """How measurements share processes; no result depends on it."""
    models: Annotated[dict[Name, ModelSource], Field(min_length=1)]
    """Models by name."""
    texts: Annotated[dict[Name, TextSource], Field(min_length=1)]
    """Texts by name."""
    sdtp: SdtpConfig
    """The SDTP half."""
    dynatree: DynatreeConfig
    """The DynaTree half."""
    paper: PaperSettings = PaperSettings()
    """How the paper is written."""
