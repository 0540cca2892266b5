"""The configuration of a study: every key, its meaning, its default and its limits."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.study.contracts.base import Contract
from ablations.study.contracts.dynatree import Drafter, Pruning, Shape
from ablations.study.contracts.lm import Compute, ModelSource, Split, TextSource
from ablations.study.contracts.paper import Expectation, Identifier, Identifiers, PaperSettings
from ablations.study.contracts.sdtp import Importance, Losses, Preserve, Ratio, Timing

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]


class Resources(Contract):
    """What jobs ask of a scheduler; no result depends on it."""

    gpu: NonNegativeInt = 0
    """GPUs of a job that runs a model (0 on machines without; a GPU found at run time is used anyway)."""
    mem_mb: PositiveInt = 4096
    """Memory of a job that runs a model, MiB."""
    runtime: PositiveInt = 120
    """Time limit of a job, minutes (a scheduler's; local runs have none)."""


class Ablation(Contract):
    """One experiment: the baseline with one component group changed."""

    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    change: dict[str, Any]
    """Overrides of the baseline, by component group."""
    compound: bool = False
    """Allow more than one component group to change."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts of the effect."""
    versus: Identifier | None = None
    """Experiment the effect is measured against; null: the SDTP baseline, or nothing for decoding."""


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


class SdtpBaseline(Contract):
    """The component groups of SDTP; an ablation changes one of them."""

    importance: Importance = "learned"
    """Where the scores of the prompt's tokens come from."""
    losses: Losses = Losses()
    """Weights of the losses that train the pruner."""
    schedule: Schedule = Schedule()
    """Where and how much is pruned."""
    preserve: Preserve = Preserve()
    """Prompt tokens kept whatever their scores."""
    positions: Literal["original", "packed"] = "original"
    """RoPE indices of survivors: their own, or renumbered at every stage."""
    mask: Literal["hard"] = "hard"
    """`hard` removes dropped tokens."""
    propagation: Literal["cascade"] = "cascade"
    """`cascade`: what one stage dropped stays dropped."""
    selection: Literal["top_k"] = "top_k"
    """How a stage turns scores into survivors."""


class SaliencySettings(Contract):
    """Saliency targets that train the pruner."""

    measure: Literal["abs", "norm"] = "abs"
    """Per token: |sum over hidden of gradient x state| (`abs`) or |gradient| x |state| (`norm`)."""
    documents: PositiveInt
    """Training documents, one window each."""
    validation_documents: PositiveInt
    """Validation documents, one window each."""
    tokens: PositiveInt
    """Tokens of one window."""
    continuation_tokens: PositiveInt = 64
    """Last tokens of a window: the loss is their NLL, here and in training, and no stage prunes them."""
    compute: Compute = Compute()
    """How saliency is computed."""


class TrainingSettings(Contract):
    """Training of the pruner; the language model stays frozen."""

    keep_ratio: Ratio = 0.7
    """Share of the living tokens that a simulated stage keeps."""
    width: PositiveInt = 128
    """Hidden width of the scorer's MLP."""
    epochs: PositiveInt = 1
    """Passes over the training windows."""
    batch: PositiveInt = 1
    """Windows per optimiser step."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    temperature: PositiveFloat = 1.0
    """Temperature of the Gumbel-softmax masks."""
    compute: Compute = Compute()
    """How training is computed."""


class SdtpEvaluation(Contract):
    """Held-out evaluation of every SDTP experiment."""

    documents: PositiveInt
    """Held-out documents, one window each."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt, the part that is pruned."""
    continuation_tokens: PositiveInt
    """Tokens after the prompt whose NLL is the quality."""
    timing: Timing
    """How prefill time is measured."""
    compute: Compute = Compute()
    """How evaluation is computed."""


class SdtpConfig(Contract):
    """The SDTP half of a study."""

    model: Name
    """Name of the model that is pruned."""
    text: Name
    """Name of the text; its splits train, validate and evaluate."""
    baseline: SdtpBaseline = SdtpBaseline()
    """The configuration every ablation starts from."""
    saliency: SaliencySettings
    """Saliency targets."""
    training: TrainingSettings = TrainingSettings()
    """Training of the pruner."""
    evaluation: SdtpEvaluation
    """Held-out evaluation."""
    ablations: dict[Identifier, Ablation] = Field(default={})
    """Experiments by id; `baseline` is one by itself."""
    only: Identifiers | None = None
    """Ids to run; null runs all."""


class DynatreeBaseline(Contract):
    """The component groups of DynaTree; an ablation changes one of them."""

    drafter: Name | None
    """Name of the drafter; null decodes autoregressively."""
    shape: Shape = Shape()
    """Shape of a draft."""
    pruning: Pruning = Pruning()
    """Which drafted paths are given up."""

    @model_validator(mode="after")
    def _linear_is_one_unpruned_path(self) -> Self:
        if self.drafter is None or self.shape.method != "linear":
            return self
        if self.shape.branching != 1:
            raise ValueError("a linear draft is one path: set shape.branching to 1")
        if self.pruning.tau is not None:
            raise ValueError("a linear draft is not pruned: set pruning.tau to null (with compound: true)")
        return self


class Prompts(Contract):
    """Decoding prompts of one kind."""

    text: Name
    """Name of the text."""
    split: Split = "heldout"
    """Split the prompts are taken from."""
    count: PositiveInt
    """How many prompts."""
    tokens: PositiveInt | None = None
    """Cut each document to its first so many tokens; null takes it whole."""


class Decoding(Contract):
    """Budget of every decoding experiment."""

    new_tokens: PositiveInt = 64
    """Most tokens generated per prompt; end of sequence stops earlier."""
    repeats: PositiveInt = 1
    """Interleaved pairs of arm and reference per prompt."""
    warmup: NonNegativeInt = 1
    """Untimed pairs before the first timed one."""
    compute: Compute = Compute()
    """How decoding is computed."""


class DecodingBudget(Contract):
    """Where one experiment's budget is smaller than the method's."""

    prompts: PositiveInt
    """Prompts of each kind."""


class DynatreeAblation(Ablation):
    """One decoding experiment."""

    budget: DecodingBudget | None = None
    """Fewer prompts for a slow arm; the paper says so."""


class DynatreeConfig(Contract):
    """The DynaTree half of a study."""

    target: Name
    """Name of the target model."""
    drafters: dict[Name, Drafter]
    """Drafters by name."""
    baseline: DynatreeBaseline
    """The full method, which every experiment starts from."""
    prompts: Annotated[dict[Name, Prompts], Field(min_length=1)]
    """Decoding prompts by kind."""
    decoding: Decoding = Decoding()
    """Budget of every experiment."""
    ablations: Annotated[dict[Identifier, DynatreeAblation], Field(min_length=1)]
    """Experiments by id, the full method included."""
    only: Identifiers | None = None
    """Ids to run; null runs all."""


class StudyConfig(Contract):
    """One study: models, texts, one block per method, and how the paper is written."""

    study: str = "default"
    """Name of the study, as the paper and records call it."""
    seed: int = 0
    """Seed of splits, training and random scores."""
    resources: Resources = Resources()
    """What jobs ask of a scheduler."""
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
