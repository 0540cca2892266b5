"""Configuration of the SDTP half of a study."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ablations.core.contract import Contract, Distinct, Identifier, Identifiers, conflict
from ablations.specs.lm import Compute
from ablations.specs.sdtp.counts import Ratio
from ablations.specs.sdtp.evaluate import PruningComponents
from ablations.specs.sdtp.record import Windows
from ablations.specs.sdtp.retrieval import Retrieval
from ablations.specs.sdtp.saliency import SaliencyTarget, SaliencyWindows
from ablations.specs.sdtp.sweep import SweepTiming
from ablations.specs.sdtp.timing import Timing
from ablations.specs.sdtp.train import Losses, PrunerTraining
from ablations.study.config.experiment import Ablation, Name
from ablations.study.config.references import Refers


class Schedule(Contract):
    """Where and how much a pruning configuration prunes."""

    stages: PositiveInt = 10
    """Number of pruning layers, evenly spaced from `first_layer` to the last layer, rounded."""
    first_layer: NonNegativeInt = 4
    """First pruning layer, counted from 0."""
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Explicit pruning layers; they take the place of `stages` and `first_layer`."""
    keep_ratio: Ratio = 0.7
    """Share of tokens kept; of what, `scope` says."""
    scope: Literal["stage", "total"] = "stage"
    """`stage`: the ratio of each stage; `total`: the ratio after all stages."""
    match: Literal["count", "flops"] | None = None
    """Takes the place of `keep_ratio`: the baseline's `count` after each stage, or one ratio for all stages
    that gives the baseline's prefill `flops`."""
    trained_keep_ratio: Ratio | None = None
    """Keep ratio that training simulates; null: `training.keep_ratio`."""


class SdtpBaseline(PruningComponents):
    """The component groups of SDTP; an ablation changes one of them."""

    losses: Losses = Losses()
    """Weights of the losses that train the pruner."""
    saliency: SaliencyTarget = SaliencyTarget()
    """What saliency means, which the pruner is trained on."""
    schedule: Schedule = Schedule()
    """Where and how much is pruned."""


class SaliencySettings(SaliencyWindows):
    """Saliency targets that train the pruner."""

    text: Annotated[Name | None, Refers("texts")] = None
    """Name of the text that the windows are from; null: the one that is evaluated (`sdtp.text`)."""


class TrainingSettings(PrunerTraining):
    """Training of the pruner; the language model stays frozen."""

    keep_ratio: Ratio = 0.7
    """Share of the living tokens that a simulated stage keeps."""


class ExploratoryBudget(Contract):
    """What exploratory experiments are measured on: the first of what the others are."""

    documents: PositiveInt
    """Held-out documents."""
    prompts: PositiveInt
    """Retrieval prompts."""


class SdtpEvaluation(Windows):
    """Held-out evaluation of every SDTP experiment."""

    timing: Timing
    """How prefill time is measured."""
    retrieval: Retrieval | None = None
    """Retrieval prompts; null for none."""
    exploratory: ExploratoryBudget | None = None
    """Smaller budget of experiments that are neither in `paper.confirmatory` nor compared with one of those;
    null: all have the same."""
    calibration_documents: PositiveInt = 6
    """Validation documents on which selection rules are calibrated to top-k's counts."""
    compute: Compute = Compute()
    """How evaluation is computed."""

    @model_validator(mode="after")
    def _exploratory_is_a_part(self) -> Self:
        if self.exploratory is None:
            return self
        documents, prompts = self.exploratory.documents, self.exploratory.prompts
        if documents > self.documents:
            raise conflict(
                "exploratory.documents", f"{documents} are more than documents ({self.documents}); lower it"
            )
        if documents < self.timing.documents:
            raise conflict(
                "timing.documents",
                f"{self.timing.documents} timed documents, but exploratory experiments have only {documents}"
                " (exploratory.documents); lower it",
            )
        if self.retrieval is not None and prompts > self.retrieval.count:
            raise conflict(
                "exploratory.prompts",
                f"{prompts} are more than retrieval.count ({self.retrieval.count}); lower it",
            )
        return self


class SweepSettings(SweepTiming):
    """Prefill and end-to-end time of the baseline against prompt length."""

    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
    """Tokens of the prompt; a job each."""


class SdtpConfig(Contract):
    """The SDTP half of a study."""

    model: Annotated[Name, Refers("models")]
    """Name of the model that is pruned."""
    text: Annotated[Name, Refers("texts")]
    """Name of the text; its splits train, validate and evaluate."""
    baseline: SdtpBaseline = SdtpBaseline()
    """The configuration every ablation starts from."""
    saliency: SaliencySettings
    """Saliency targets."""
    training: TrainingSettings = TrainingSettings()
    """Training of the pruner."""
    evaluation: SdtpEvaluation
    """Held-out evaluation."""
    sweep: SweepSettings | None = None
    """Time against prompt length; null measures none."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1), Distinct] = (0,)
    """Training seeds. The baseline has them all, and so have confirmatory experiments whose scorer is trained
    in another way. The others have the first, with which random scores are drawn and prefill is timed."""
    ablations: dict[Identifier, Ablation] = Field(default={})
    """Experiments by id; `baseline` is one by itself."""
    only: Identifiers | None = None
    """Ids to run beside the baseline; null runs all, an empty list runs nothing, the baseline included."""
