"""Specs and samples of the SDTP jobs (saliency-driven dynamic token pruning, arXiv 2504.04514)."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Compute
from ablations.study.contracts.record import Digests, Environment
from ablations.study.errors import UserError

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Amount = NonNegativeInt | Annotated[float, Field(gt=0.0, lt=1.0)]
Layers = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]

Importance = Literal["learned", "saliency", "prior", "random", "recent", "hidden_norm"]
Positions = Literal["original", "packed", "stale"]
Mask = Literal["hard", "soft"]
Propagation = Literal["cascade", "local", "stale_keys"]
Selection = Literal["top_k", "top_p", "threshold"]
Measure = Literal["abs", "norm", "signed"]


class Losses(Contract):
    """Weights of the training losses (arXiv 2504.04514, eq. 8 has all three at one)."""

    lm: NonNegativeFloat = 1.0
    """Cross-entropy of the frozen LM under the simulated pruning (eq. 7)."""
    mse: NonNegativeFloat = 1.0
    """Mean squared error between keep logit and standardised saliency (eq. 4)."""
    ranking: NonNegativeFloat = 1.0
    """Pairwise logistic ranking loss, a mean over pairs (eq. 5 and 6)."""


class Protected(NamedTuple):
    """Tokens of one prompt that no stage drops."""

    head: int
    """First tokens of the prompt."""
    tail: int
    """Last tokens of the prompt."""

    @property
    def tokens(self) -> int:
        """Both together; more than the prompt has where head and tail overlap."""
        return self.head + self.tail


class Preserve(Contract):
    """Prompt tokens that no stage may drop: a number of tokens, or, below one, a share of the prompt."""

    head: Amount = 4
    """First tokens of the prompt that are always kept: how many, or which share of the prompt."""
    tail: Amount = 16
    """Last tokens of the prompt that are always kept: how many, or which share of the prompt."""

    def of(self, tokens: int) -> Protected:
        """What is protected of a prompt of `tokens` tokens; a share is rounded up."""
        return Protected(
            *(
                ceil(_decimal(amount) * tokens) if 0 < amount < 1 else int(amount)
                for amount in (self.head, self.tail)
            )
        )


def stage_counts(tokens: int, keep_ratios: Iterable[float], protected: int) -> tuple[int, ...]:
    """Tokens that are left of a prompt after each stage: ``max(protected, ceil(ratio * living))``.

    They depend on lengths alone, so that a prefill never waits for the device to learn a shape.

    Args:
        tokens: Tokens of the prompt.
        keep_ratios: Share of the living tokens that each stage keeps, protected ones included.
        protected: A stage leaves at least this many tokens, or all where there are fewer.
    """
    counts = []
    living = tokens
    for ratio in keep_ratios:
        living = max(min(tokens, protected), ceil(_decimal(ratio) * living))
        counts.append(living)
    return tuple(counts)


def _decimal(number: float) -> Fraction:
    """The decimal that was written, not its binary neighbour: 0.55 of 100 is 55, not 56."""
    return Fraction(str(number))


class SaliencyTarget(Contract):
    """What saliency means."""

    measure: Measure = "norm"
    """Per token, of gradient g and state x: `abs` is |g . x|, `norm` is |g| |x|, `signed` is -g . x, by how
    much the NLL would rise, to first order, if the state were zero."""
    loss: Literal["continuation", "window"] = "continuation"
    """Whose NLL the gradient is of: the window's last tokens, which are not pruned, or all of its tokens."""

    def stages(self, layers: Sequence[int], num_layers: int) -> int:
        """How many stages, from the first on, have a saliency; all, or all but the one at the last layer.

        The last layer normalises its input before attention, so the size of a token's state has no effect on
        the keys and values that others see, and g . x is exactly 0. It is not for a token that predicts one
        of those whose NLL is meant: its state also goes on to the head, past the layer.

        Args:
            layers: Ascending layers of the stages.
            num_layers: Layers of the model.
        """
        nothing = self.measure != "norm" and self.loss == "continuation" and num_layers - 1 in layers
        return len(layers) - nothing


class SaliencySpec(Contract):
    """Job of `ablations.sdtp.saliency`: windows and their saliency per pruning layer."""

    layers: Layers
    """Layers whose input states are scored, counted from 0."""
    target: SaliencyTarget
    """What saliency means."""
    documents: PositiveInt
    """Training documents, one window each."""
    heldout_documents: PositiveInt
    """Held-out documents, one window each, on which a pruner's ranking is measured."""
    tokens: PositiveInt
    """Tokens of one window."""
    continuation_tokens: PositiveInt
    """Last tokens of a window: training's LM loss is their NLL, and no stage prunes them."""
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
    warmup_epochs: NonNegativeInt = 0
    """Passes over the training windows before the others, with the saliency losses alone: on the unpruned
    model's states, which are computed once and held in memory."""
    epochs: PositiveInt
    """Passes over the training windows through the masked model."""
    batch: PositiveInt
    """Windows per optimiser step."""
    learning_rate: PositiveFloat
    """Peak learning rate of AdamW (cosine decay)."""
    temperature: PositiveFloat
    """Temperature of the Gumbel-softmax masks; which tokens a draw keeps does not depend on it."""
    seed: int
    """Seed of initialisation, order and Gumbel noise."""
    compute: Compute
    """How the job computes."""


def require_choice(spec: PrunerSpec, windows: SaliencySpec, prefix: str = "") -> None:
    """Check that every simulated stage drops a token of a training prompt, so that each scorer can learn.

    Then every stage but the last also keeps one that it could have dropped: the next one has to drop it.

    Args:
        spec: The training.
        windows: What it trains on.
        prefix: Of the keys in the message.

    Raises:
        UserError: a stage drops nothing, because all that is left is protected or the keep ratio keeps it.
    """
    prompt = max(0, windows.tokens - windows.continuation_tokens)
    protected = spec.preserve.of(prompt).tokens
    counts = stage_counts(prompt, spec.keep_ratios, protected)
    for stage, (before, after) in enumerate(zip((prompt, *counts), counts, strict=False), 1):
        if before == after:
            raise UserError(
                f"{prefix}saliency.tokens: stage {stage} of {len(counts)} has nothing to drop in training: it"
                f" keeps all {after} that are left of a prompt of {prompt} tokens (tokens -"
                f" continuation_tokens), {min(prompt, protected)} of them protected; raise tokens, protect"
                f" less (preserve), or let training prune less (schedule, training.keep_ratio or"
                " schedule.trained_keep_ratio)"
            )


def require_saliency(
    target: SaliencyTarget, layers: Sequence[int], num_layers: int, key: str, why: str
) -> None:
    """Check that each stage has a saliency.

    Args:
        target: What saliency means.
        layers: Ascending layers of the stages.
        num_layers: Layers of the model.
        key: Key of the measure, for the message.
        why: What would come of it if one had none, for the message.

    Raises:
        UserError: the one at the last layer has none.
    """
    if target.stages(layers, num_layers) < len(layers):
        raise UserError(
            f"{key}: '{target.measure}' of the loss '{target.loss}' is 0 at the input of the last layer"
            f" ({num_layers - 1}), so {why}; use 'norm' or the loss 'window', or do not prune at that layer"
        )


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
    warmup: PositiveInt = 1
    """Untimed pairs before the first timed one; before that of each document where scores decide how many
    tokens are kept, as nothing is timed that has not run with the same numbers of rows before."""


class Retrieval(Contract):
    """Passkey retrieval: a number hidden in held-out text, asked for at the end of the prompt."""

    tokens: PositiveInt
    """Tokens of a prompt, the question included."""
    depths: Annotated[tuple[Share, ...], Field(min_length=1)]
    """Where the number is hidden, as shares of the text before the question."""
    keys: PositiveInt
    """Prompts (each with a number of its own) per depth."""


class RetrievalProbe(Contract):
    """One passkey prompt under one pruning configuration."""

    depth: Share
    """Where the number was hidden."""
    hit: bool
    """Whether greedy decoding says the number."""
    nll: float
    """Mean NLL of the number's tokens, nats per token."""
    reference_hit: bool
    """The same for the unpruned model: the ceiling."""
    reference_nll: float
    """The same for the unpruned model."""


class ReferenceSpec(Contract):
    """Job of `ablations.sdtp.reference`: the unpruned model on all that arms are evaluated on."""

    windows: Windows
    """Which windows."""
    retrieval: Retrieval | None
    """Passkey prompts; null for none."""
    compute: Compute
    """How the job computes."""


class ReferenceRow(Contract):
    """The unpruned model on one window."""

    document: str
    """Identifier of the document."""
    nll: float
    """Mean NLL of the continuation, nats per token."""


class ReferenceProbe(Contract):
    """The unpruned model on one passkey prompt."""

    depth: Share
    """Where the number was hidden."""
    hit: bool
    """Whether greedy decoding says the number."""
    nll: float
    """Mean NLL of the number's tokens, nats per token."""


class Reference(Contract):
    """Output of `ablations.sdtp.reference`; the states of continuations lie beside it."""

    rows: tuple[ReferenceRow, ...]
    """One row per window, in the order of evaluation."""
    retrieval: tuple[ReferenceProbe, ...]
    """One row per passkey prompt, in the order of evaluation."""


class CalibrationSpec(Contract):
    """Job of `ablations.sdtp.calibrate`: what makes another selection rule keep as much as top-k.

    One number per stage, so that over the validation prompts the mean of the kept tokens is top-k's count.
    """

    selection: Literal["top_p", "threshold"]
    """The rule to calibrate."""
    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    keep_ratios: tuple[Ratio, ...]
    """Share of the living tokens that top-k would keep at each stage."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    documents: PositiveInt
    """Validation documents, one prompt each."""
    tokens: PositiveInt
    """Tokens of a prompt."""
    compute: Compute
    """How the job computes."""


class Calibration(Contract):
    """Output of `ablations.sdtp.calibrate`."""

    values: tuple[float, ...]
    """Per stage: the probability mass to keep (`top_p`) or the lowest score kept (`threshold`)."""
    counts: tuple[PositiveInt, ...]
    """Tokens that top-k keeps at each stage, of a prompt of the calibrated length."""
    mean_kept: tuple[PositiveFloat, ...]
    """Tokens that the rule keeps at each stage, a mean over the validation prompts."""


class Match(Contract):
    """Another configuration whose count or cost an arm must have; it takes the place of keep ratios."""

    quantity: Literal["count", "flops"]
    """`count`: as many tokens after each stage; `flops`: one ratio for all stages, of equal prefill FLOPs."""
    layers: Layers
    """Pruning layers of the configuration to match."""
    keep_ratios: tuple[Ratio, ...]
    """Its keep ratios."""
    preserve: Preserve
    """Its protected tokens."""


class PromptSaliency(Contract):
    """Importance `saliency`: the gradient saliency of the prompt itself, by a backward pass over it."""

    measure: Measure
    """What saliency means."""
    loss_tokens: PositiveInt | None
    """Last tokens of the prompt whose NLL the gradient is of; null for all but the first, which nothing
    predicts."""

    @property
    def target(self) -> SaliencyTarget:
        """The same as a target of training."""
        return SaliencyTarget(
            measure=self.measure, loss="window" if self.loss_tokens is None else "continuation"
        )


class Pipeline(Contract):
    """The prefill split over ranks, consecutive layers each, one process per rank."""

    ranks: Annotated[int, Field(ge=2)]
    """Processes."""
    prune: Literal["before", "after"] = "before"
    """Which side of a boundary runs the stage that lies on it: the sender (`before`) or the receiver."""


class EvaluateSpec(Contract):
    """Job of `ablations.sdtp.evaluate`: one pruning configuration on the held-out windows."""

    importance: Importance
    """Where the scores of the prompt's tokens come from."""
    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    keep_ratios: tuple[Ratio, ...]
    """Share of the living tokens that each stage keeps."""
    match: Match | None
    """Configuration whose count or cost takes the place of `keep_ratios`; null for none."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    positions: Positions
    """`original` keeps each survivor's RoPE index, `packed` renumbers survivors at every stage, `stale`
    leaves the full-length rotary tensor in place."""
    mask: Mask
    """`hard` removes dropped tokens from hidden states, keys, values and masks; `soft` removes nothing and
    weights attention by keep probabilities."""
    propagation: Propagation
    """`cascade`: what one stage dropped stays dropped; `local`: the next stage may take it up again, with the
    state it had; `stale_keys`: its state stays as it was, and its keys and values stay visible."""
    selection: Selection
    """`top_k`: a stage keeps the highest scores up to its count; `top_p`: the fewest tokens with a given mass
    of probability; `threshold`: all scores over a bound."""
    saliency: PromptSaliency | None
    """How importance `saliency` is computed; null for other importances."""
    pipeline: Pipeline | None
    """Ranks that share the prefill; null for a single process."""
    windows: Windows
    """Which windows."""
    retrieval: Retrieval | None
    """Passkey prompts; null for none."""
    timing: Timing | None
    """How prefill time is measured; null measures none (further seeds of an arm)."""
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


class RankTime(Contract):
    """How one rank of a pipeline spent one prefill, seconds."""

    busy: NonNegativeFloat
    """Computing its layers and stages."""
    idle: NonNegativeFloat
    """Waiting for its input, handing over its output, or waiting for the end of the prefill."""


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
    agreement: Share
    """Share of the continuation's tokens for which both models' most probable token is the same."""
    kl: NonNegativeFloat
    """KL divergence of the pruned model's next-token distribution from the unpruned one's, a mean over the
    continuation, nats."""
    living: tuple[NonNegativeInt, ...]
    """Tokens that enter each layer during prefill."""
    pairs: tuple[TimedPair, ...] = ()
    """Prefill times; empty for windows that are not timed."""
    boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """Bytes of hidden states sent over each pipeline boundary in the pruned prefill; empty without ranks."""
    reference_boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """The same for the unpruned model."""
    ranks: tuple[RankTime, ...] = ()
    """How each rank spent the last timed pruned prefill; empty without ranks or where it is not timed."""


class Ranking(Contract):
    """How well scores rank the tokens of one held-out window that stages may drop, one number per stage.

    The stage at the last layer is missing where its saliency is 0 (measures `abs` and `signed`).
    """

    document: str
    """Identifier of the document."""
    spearman: tuple[float, ...]
    """Rank correlation of score and saliency (Spearman)."""
    ndcg: tuple[Share, ...]
    """Normalised discounted cumulative gain of the order of scores, with saliency's quantile as the gain."""
    overlap: tuple[Share, ...]
    """Share of the tokens that this stage would keep by saliency which it keeps by score."""


class Training(Contract):
    """How the scorer of a learned arm was trained, and how well it ranks."""

    pruner: PrunerSpec
    """What was trained."""
    saliency: SaliencySpec
    """What it was trained on."""
    ranking: tuple[Ranking, ...]
    """Per held-out window."""
    ranking_untrained: tuple[Ranking, ...]
    """The same before training."""
    seconds: PositiveFloat
    """Duration of the training."""


class SdtpTotals(Contract):
    """Facts of one pruning configuration; costs are means over the evaluated prompts."""

    keep_ratios: tuple[Ratio, ...]
    """Keep ratios in use, after matching."""
    prefill_flops: PositiveFloat
    """Floating-point operations of the pruned prefill, scorers (or their backward pass) included."""
    reference_prefill_flops: PositiveFloat
    """The same for the unpruned model."""
    kv_bytes: PositiveFloat
    """Bytes of the KV cache that the pruned prefill leaves."""
    reference_kv_bytes: PositiveInt
    """The same for the unpruned model."""
    training: Training | None = None
    """How the scorer was trained; null where none is used."""
    calibration: Calibration | None = None
    """Numbers of a calibrated selection rule; null for top-k."""
    retrieval: tuple[RetrievalProbe, ...] = ()
    """Passkey prompts."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    cores: PositiveInt
    """CPU cores this process could use."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""


class SweepSpec(Contract):
    """Job of `ablations.sdtp.sweep`: time against prompt length, for several keep ratios."""

    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    keep_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1)]
    """Keep ratios to measure; each is the ratio of every stage."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    tokens: PositiveInt
    """Tokens of the prompt."""
    new_tokens: PositiveInt
    """Tokens decoded after the prefill for the end-to-end time."""
    repeats: PositiveInt
    """Interleaved pairs of each kind, the order alternating."""
    warmup: PositiveInt = 1
    """Untimed pairs before the first timed one."""
    beyond_positions: bool = False
    """Time prompts longer than the model's positions, too; what it would say of them means nothing."""
    compute: Compute
    """How the job computes."""


class SweepPoint(Contract):
    """One keep ratio at one prompt length."""

    keep_ratio: Ratio
    """Ratio of every stage."""
    flops: PositiveFloat
    """Floating-point operations of the pruned prefill, scorers included."""
    reference_flops: PositiveFloat
    """The same for the unpruned model."""
    kv_bytes: PositiveInt
    """Bytes of the KV cache after the pruned prefill."""
    reference_kv_bytes: PositiveInt
    """The same for the unpruned model."""
    prefill: tuple[TimedPair, ...]
    """Prefill times."""
    end_to_end: tuple[TimedPair, ...]
    """Times of prefill and decoding."""
    overhead: Share
    """Share of the pruned prefill that scoring, selecting and gathering take."""


class Sweep(Contract):
    """Output of `ablations.sdtp.sweep`."""

    spec: SweepSpec
    """What ran."""
    points: tuple[SweepPoint, ...]
    """One per keep ratio."""
    library: tuple[TimedPair, ...]
    """Unpruned prefill (`arm`) beside that of `transformers` (`reference`), last-position logits in both."""
    weight_layout: str
    """How this project's weights lie in memory (`stock`, or the prepacking used)."""
    environment: Environment
    """Where and with what."""
    digests: Digests
    """What determines it."""
