"""Specs and samples of the SDTP jobs (saliency-driven dynamic token pruning, arXiv 2504.04514)."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Compute

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Layers = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]

Importance = Literal["learned", "random"]


class Losses(Contract):
    """Weights of the training losses (arXiv 2504.04514, eq. 8 has all three at one)."""

    lm: NonNegativeFloat = 1.0
    """Cross-entropy of the frozen LM under the simulated pruning (eq. 7)."""
    mse: NonNegativeFloat = 1.0
    """Mean squared error between keep logit and standardised saliency (eq. 4)."""
    ranking: NonNegativeFloat = 1.0
    """Pairwise logistic ranking loss, a mean over pairs (eq. 5 and 6)."""


class Preserve(Contract):
    """Prompt tokens that no stage may drop."""

    head: NonNegativeInt = 4
    """First tokens of the prompt that are always kept."""
    tail: NonNegativeInt = 16
    """Last tokens of the prompt that are always kept."""


class SaliencySpec(Contract):
    """Job of `ablations.sdtp.saliency`: training windows and their saliency per pruning layer."""

    layers: Layers
    """Layers whose input states are scored, counted from 0."""
    measure: Literal["abs", "norm"] = "abs"
    """Per token: `abs` is |sum over hidden of gradient x state|, `norm` is |gradient| x |state|."""
    documents: PositiveInt
    """Training documents, one window each."""
    validation_documents: PositiveInt
    """Validation documents, one window each, for the pruner's held-out ranking quality."""
    tokens: PositiveInt
    """Tokens of one window."""
    continuation_tokens: PositiveInt
    """Last tokens of a window: the loss is their NLL, here and in training, and no stage prunes them."""
    compute: Compute
    """How the job computes."""


class PrunerSpec(Contract):
    """Job of `ablations.sdtp.train`: one scorer per pruning layer, the language model frozen."""

    layers: Layers
    """Layers whose input states are scored, counted from 0."""
    losses: Losses
    """Weights of the training losses."""
    keep_ratios: tuple[Ratio, ...]
    """Share of the living tokens that each simulated stage keeps."""
    preserve: Preserve
    """Tokens that the simulated stages never drop."""
    width: PositiveInt
    """Hidden width of the scorer's MLP."""
    epochs: PositiveInt
    """Passes over the training windows."""
    batch: PositiveInt
    """Windows per optimiser step."""
    learning_rate: PositiveFloat
    """Peak learning rate of AdamW (cosine decay)."""
    temperature: PositiveFloat
    """Temperature of the Gumbel-softmax masks."""
    seed: int
    """Seed of initialisation, order and Gumbel noise."""
    compute: Compute
    """How the job computes."""


class Windows(Contract):
    """Which held-out windows are evaluated."""

    documents: PositiveInt
    """Held-out documents, one window each."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt, the part that is pruned."""
    continuation_tokens: PositiveInt
    """Tokens after the prompt whose NLL is the quality."""


class Timing(Contract):
    """How prefill time is measured: arm and reference interleaved in one process."""

    documents: PositiveInt
    """Held-out documents that are timed (the first of the evaluated ones)."""
    repeats: PositiveInt
    """Pairs per document, the order alternating."""
    warmup: NonNegativeInt = 1
    """Untimed pairs before the first timed one."""


class ReferenceSpec(Contract):
    """Job of `ablations.sdtp.reference`: the unpruned model on the held-out windows."""

    windows: Windows
    """Which windows."""
    compute: Compute
    """How the job computes."""


class ReferenceRow(Contract):
    """The unpruned model on one window."""

    document: str
    """Identifier of the document."""
    nll: float
    """Mean NLL of the continuation, nats per token."""


class Reference(Contract):
    """Output of `ablations.sdtp.reference`."""

    rows: tuple[ReferenceRow, ...]
    """One row per window, in the order of evaluation."""


class EvaluateSpec(Contract):
    """Job of `ablations.sdtp.evaluate`: one pruning configuration on the held-out windows."""

    importance: Importance
    """Where the scores of the prompt's tokens come from."""
    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    keep_ratios: tuple[Ratio, ...]
    """Share of the living tokens that each stage keeps."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    positions: Literal["original", "packed"]
    """`original` keeps each survivor's RoPE index, `packed` renumbers survivors at every stage."""
    mask: Literal["hard"]
    """`hard` removes dropped tokens from hidden states, keys, values and masks."""
    propagation: Literal["cascade"]
    """`cascade`: what one stage dropped stays dropped."""
    selection: Literal["top_k"]
    """`top_k`: a stage keeps the highest scores up to its count."""
    windows: Windows
    """Which windows."""
    timing: Timing
    """How prefill time is measured."""
    seed: int
    """Seed of random scores."""
    compute: Compute
    """How the job computes."""


class TimedPair(Contract):
    """One interleaved measurement, seconds."""

    arm: PositiveFloat
    """Pruned prefill."""
    reference: PositiveFloat
    """Unpruned prefill, measured beside it."""


class SdtpSample(Contract):
    """One held-out window under one pruning configuration."""

    document: str
    """Identifier of the document."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt before pruning."""
    nll: float
    """Mean NLL of the continuation after the pruned prompt, nats per token."""
    reference_nll: float
    """The same for the unpruned model."""
    living: tuple[NonNegativeInt, ...]
    """Tokens that enter each layer during prefill."""
    pairs: tuple[TimedPair, ...] = ()
    """Prefill times; empty for windows that are not timed."""


class Training(Contract):
    """How the scorer of a learned arm was trained, and how well it ranks."""

    pruner: PrunerSpec
    """What was trained."""
    saliency: SaliencySpec
    """What it was trained on."""
    spearman: tuple[float, ...]
    """Held-out rank correlation of score and saliency per stage, a mean over validation windows."""
    spearman_untrained: tuple[float, ...]
    """The same before training."""


class SdtpTotals(Contract):
    """Deterministic costs of one pruning configuration, per prompt of the evaluated length."""

    prefill_flops: PositiveFloat
    """Floating-point operations of the pruned prefill, scorers included."""
    reference_prefill_flops: PositiveFloat
    """The same for the unpruned model."""
    kv_bytes: PositiveInt
    """Bytes of the KV cache that the pruned prefill leaves."""
    reference_kv_bytes: PositiveInt
    """The same for the unpruned model."""
    training: Training | None = None
    """How the scorer was trained; null where none is used."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""
