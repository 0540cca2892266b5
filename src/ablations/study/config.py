"""The configuration of a study: every key, its meaning, its default and its limits."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ablations.study.contracts.base import Contract
from ablations.study.contracts.benchmark import TransformersArm, check_settings
from ablations.study.contracts.dynatree import Adaptation, Drafter, Probability, Pruning, Shape
from ablations.study.contracts.lm import Compute, ModelSource, Split, TextSource
from ablations.study.contracts.paper import Expectation, Identifier, Identifiers, PaperSettings
from ablations.study.contracts.sdtp import (
    Importance,
    Losses,
    Mask,
    Pipeline,
    Positions,
    Preserve,
    Propagation,
    Ratio,
    Retrieval,
    SaliencyTarget,
    Selection,
    Timing,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]


class Resources(Contract):
    """What jobs ask of a scheduler; no result depends on it."""

    gpu: NonNegativeInt = 0
    """GPUs of a job that runs a model (0 on machines without; a GPU found at run time is used anyway)."""
    mem_mb: PositiveInt | None = None
    """Memory of a job that runs a model, MiB; null: from the size of the model."""
    runtime: PositiveInt = 720
    """Longest time limit of a job, minutes (a scheduler's; local runs have none). Jobs ask for less where
    their spec and the size of the model let them."""
    exclusive: bool = True
    """Ask Slurm for a whole node for a job that measures times on the CPU; false where a site forbids it."""


class Ablation(Contract):
    """One experiment: the baseline with one component group changed."""

    title: str
    """What tables call it."""
    section: Annotated[str, Field(pattern=r"\S")]
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
    match: Literal["count", "flops"] | None = None
    """Takes the place of `keep_ratio`: the baseline's `count` after each stage, or one ratio for all stages
    that gives the baseline's prefill `flops`."""
    trained_keep_ratio: Ratio | None = None
    """Keep ratio that training simulates; null: `training.keep_ratio`."""


class SdtpBaseline(Contract):
    """The component groups of SDTP; an ablation changes one of them."""

    importance: Importance = "learned"
    """Where the scores of the prompt's tokens come from."""
    losses: Losses = Losses()
    """Weights of the losses that train the pruner."""
    saliency: SaliencyTarget = SaliencyTarget()
    """What saliency means, which the pruner is trained on."""
    schedule: Schedule = Schedule()
    """Where and how much is pruned."""
    preserve: Preserve = Preserve()
    """Prompt tokens kept whatever their scores."""
    positions: Positions = "original"
    """RoPE indices of survivors: their own (`original`), renumbered at every stage (`packed`), or the
    full-length rotary tensor left in place (`stale`)."""
    mask: Mask = "hard"
    """`hard` removes dropped tokens, `soft` weights attention by keep probabilities and removes nothing."""
    propagation: Propagation = "cascade"
    """`cascade`: what one stage dropped stays dropped; `local`: the next stage may take it up again;
    `stale_keys`: its state stays as it was, its keys and values stay visible."""
    selection: Selection = "top_k"
    """How a stage turns scores into survivors; `top_p` and `threshold` are calibrated to top-k's counts."""
    pipeline: Pipeline | None = None
    """Ranks that share the prefill; null for a single process."""


class SaliencySettings(Contract):
    """Saliency targets that train the pruner."""

    text: Name | None = None
    """Name of the text that the windows are from; null: the one that is evaluated (`sdtp.text`)."""
    documents: PositiveInt
    """Training documents, one window each."""
    heldout_documents: PositiveInt
    """Held-out documents, one window each, on which a pruner's ranking is measured."""
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
    warmup_epochs: NonNegativeInt = 0
    """Passes before those, on the unpruned model's states and saliency alone; cheap, the states are kept."""
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
    retrieval: Retrieval | None = None
    """Passkey prompts; null for none."""
    calibration_documents: PositiveInt = 6
    """Validation documents on which selection rules are calibrated to top-k's counts."""
    shards: PositiveInt = 1
    """Jobs that share the documents of one experiment (for clusters); no result depends on it."""
    compute: Compute = Compute()
    """How evaluation is computed."""


class SweepSettings(Contract):
    """Prefill and end-to-end time of the baseline against prompt length."""

    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Tokens of the prompt; a job each."""
    keep_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1)]
    """Keep ratios of every stage."""
    new_tokens: PositiveInt = 128
    """Tokens decoded after the prefill for the end-to-end time."""
    repeats: PositiveInt = 3
    """Interleaved pairs of each kind."""
    warmup: NonNegativeInt = 1
    """Untimed pairs before the first timed one."""
    beyond_positions: bool = False
    """Time prompts longer than the model's positions, too; what it would say of them means nothing."""


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
    sweep: SweepSettings | None = None
    """Time against prompt length; null measures none."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Seeds of training and of random scores; quality is a mean over them, speed is measured on the first."""
    ablations: dict[Identifier, Ablation] = Field(default={})
    """Experiments by id; `baseline` is one by itself."""
    only: Identifiers | None = None
    """Ids to run beside the baseline; null runs all, an empty list runs nothing, the baseline included."""


class DynatreeBaseline(Contract):
    """The component groups of DynaTree; an ablation changes one of them."""

    drafter: Name | None
    """Name of the drafter; null decodes autoregressively."""
    shape: Shape = Shape()
    """Shape of a draft."""
    pruning: Pruning = Pruning()
    """Which drafted paths are given up."""
    adaptation: Adaptation | None = None
    """How trees adapt to the draft's probabilities and to costs; null for a fixed shape."""

    @model_validator(mode="after")
    def _a_path_has_room(self) -> Self:
        if self.drafter is not None and self.pruning.max_nodes < self.shape.depth:
            raise ValueError(
                f"a tree of {self.pruning.max_nodes} nodes cannot hold a path of depth {self.shape.depth}:"
                " raise pruning.max_nodes or lower shape.depth"
            )
        return self

    @model_validator(mode="after")
    def _linear_is_one_unpruned_path(self) -> Self:
        if self.drafter is None or self.shape.method != "linear":
            return self
        if self.adaptation is not None:
            raise ValueError("a linear draft has a fixed length: set adaptation to null")
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
    chat: bool = False
    """Put each document, as a user's turn, into the target's chat template."""

    @model_validator(mode="after")
    def _chat_is_whole(self) -> Self:
        if self.chat and self.tokens is not None:
            raise ValueError("a turn of a chat is taken whole: set tokens to null, or chat to false")
        return self


def _without_null(kinds: Any) -> Any:
    return (
        {name: kind for name, kind in kinds.items() if kind is not None} if isinstance(kinds, dict) else kinds
    )


PromptKinds = Annotated[
    dict[Name, Prompts],
    Field(min_length=1),
    BeforeValidator(_without_null, json_schema_input_type=dict[Name, Prompts | None]),
]


class Decoding(Contract):
    """Budget of every decoding experiment."""

    new_tokens: PositiveInt = 64
    """Most tokens generated per prompt; end of sequence stops earlier."""
    repeats: PositiveInt = 1
    """Interleaved pairs of arm and reference per prompt."""
    discarded: NonNegativeInt = 0
    """Whole pairs of every prompt before those, which are not recorded."""
    warmup: NonNegativeInt = 1
    """Untimed pairs before the first timed one."""
    temperature: float = 0.0
    """Only 0: decoding is greedy."""
    compute: Compute = Compute()
    """How decoding is computed."""

    @field_validator("temperature")
    @classmethod
    def _greedy(cls, temperature: float) -> float:
        if temperature != 0:
            raise ValueError("sampling is not supported, decoding is greedy; leave it at 0")
        return temperature


class CostCalibration(Contract):
    """What drafting and verifying cost and bring, measured once per drafter for cost-aware trees."""

    prompts: Annotated[dict[Name, Prompts], Field(min_length=1)]
    """Validation prompts by kind."""
    new_tokens: PositiveInt = 48
    """Most tokens generated per prompt."""
    max_nodes: PositiveInt = 64
    """Most nodes of a cost-aware tree."""
    prefix: PositiveInt = 256
    """Tokens in the cache while costs are measured."""
    repeats: PositiveInt = 7
    """Timed forwards of each size; the fastest counts."""


class BenchmarkSettings(Contract):
    """The benchmark: the study's decoding arms and `transformers`, interleaved in one process."""

    best_of: Annotated[Identifiers, Field(min_length=1)]
    """Experiments of which the fastest stands for the method."""
    transformers: dict[Identifier, TransformersArm]
    """Settings of `generate` by name; assisted ones are run with the draft model of the first experiment
    that has one (a drafter of kind `neural`)."""
    prompts: PositiveInt | None = None
    """Prompts of each kind; null: as many as `prompts` says."""
    new_tokens: PositiveInt | None = None
    """Most tokens generated per prompt; null: as in `decoding`."""
    repeats: PositiveInt = 1
    """Runs of each arm on each prompt, the order of arms rotating."""
    compute: Compute | None = None
    """How the benchmark is computed; null: as `decoding`."""

    @model_validator(mode="after")
    def _has_a_reference(self) -> Self:
        check_settings(self.transformers)
        return self


class Grids(Contract):
    """What the baseline's drafter would bring in other trees: exact replay, priced with calibrated costs."""

    linear: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Lengths of linear drafts (K)."""
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Depths of trees (D)."""
    branchings: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Children per node (B)."""
    taus: Annotated[tuple[Probability, ...], Field(min_length=1)]
    """Thresholds on the path probability, each with every depth and branching."""
    max_nodes: PositiveInt = 128
    """Most nodes of any tree; costs are calibrated up to it."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt for the trees above."""
    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Most tokens generated per prompt, rising, for the baseline's tree and a linear draft of its depth."""

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        deepest = max(*self.linear, *self.depths)
        if self.max_nodes < deepest:
            raise ValueError(f"'max_nodes' must hold a path of depth {deepest}")
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("'lengths' must rise")
        return self


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
    prompts: PromptKinds
    """Decoding prompts by kind; an overlay takes a kind out by null."""
    decoding: Decoding = Decoding()
    """Budget of every experiment."""
    calibration: CostCalibration | None = None
    """What cost-aware trees and grids are calibrated on; needed where there are any."""
    grids: Grids | None = None
    """Trees to replay; null replays none."""
    benchmark: BenchmarkSettings | None = None
    """The benchmark of all arms in one process; null for none."""
    ablations: Annotated[dict[Identifier, DynatreeAblation], Field(min_length=1)]
    """Experiments by id, the full method included."""
    only: Identifiers | None = None
    """Ids to run; null runs all."""


class StudyConfig(Contract):
    """One study: models, texts, one block per method, and how the paper is written."""

    study: str = "default"
    """Name of the study, as the paper and records call it."""
    seed: int = 0
    """Seed of the order and the split of texts."""
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
