"""Configuration of the SDTP half of a study."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.config.experiment import Ablation, Name
from ablations.study.contracts.base import Contract, Distinct
from ablations.study.contracts.lm import Compute
from ablations.study.contracts.paper import Identifier, Identifiers
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
    """RoPE indices of survivors: their own (`original`), renumbered at every stage, each layer continuing
    after its own last survivor (`packed`), or the full-length rotary tensor left in place (`stale`)."""
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
    """Temperature of the Gumbel-softmax masks; which tokens a draw keeps does not depend on it."""
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

    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
    """Tokens of the prompt; a job each."""
    keep_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1), Distinct]
    """Keep ratios of every stage."""
    new_tokens: PositiveInt = 128
    """Tokens decoded after the prefill for the end-to-end time."""
    repeats: PositiveInt = 3
    """Interleaved pairs of each kind."""
    warmup: PositiveInt = 1
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
    seeds: Annotated[tuple[int, ...], Field(min_length=1), Distinct] = (0,)
    """Seeds of training and of random scores; quality is a mean over them, speed is measured on the first."""
    ablations: dict[Identifier, Ablation] = Field(default={})
    """Experiments by id; `baseline` is one by itself."""
    only: Identifiers | None = None
    """Ids to run beside the baseline; null runs all, an empty list runs nothing, the baseline included."""
