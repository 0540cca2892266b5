"""Series of `ablations.sdtp.evaluate` and `evaluate_pipeline`: an experiment under one measure; its blocks.

No count of documents or prompts is part of a series: more of them are more blocks of the same one.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion, conflict
from ablations.specs.lm import Compute
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import Preserve, Ratio, Stages, check_prunable
from ablations.specs.sdtp.pruning import Mask, Positions, Propagation, Selection
from ablations.specs.sdtp.retrieval import RetrievalPrompts
from ablations.specs.sdtp.saliency import SaliencyMeasure, SaliencySpec
from ablations.specs.sdtp.timing import TimedPair, TimedRounds
from ablations.specs.sdtp.train import PrunerSpec, Ranking

Importance = Literal[
    "learned",
    "learned_distance",
    "saliency",
    "oracle",
    "prior",
    "random",
    "recent",
    "hidden_norm",
    "attention_last",
    "attention_window",
]
"""Where scores come from. `learned_distance`: the learned score minus twice the logarithm of the distance to
the prompt's end; `oracle`: the saliency of the true continuation, which no method knows; `attention_last`:
the attention of the prompt's last token (LazyLLM); `attention_window`: of its last tokens (SnapKV)."""

TRAINED: tuple[Importance, ...] = ("learned", "learned_distance")
"""Importances that need a trained scorer."""
CHEAP: tuple[Importance, ...] = (*TRAINED, "prior", "random", "recent", "hidden_norm")
"""Importances whose scores cost next to nothing: arms that differ in nothing else run the same kernels."""
BY_GRADIENT: tuple[Importance, ...] = ("saliency", "oracle")
"""Importances that need a backward pass."""
ATTENTION_WINDOW = 16
"""Last tokens of the prompt whose attention `attention_window` takes."""

OVER_RANKS = {
    "importance": ("learned", "learned_distance", "random", "recent", "hidden_norm"),
    "mask": ("hard",),
    "propagation": ("cascade",),
    "selection": ("top_k",),
    "positions": ("original", "packed"),
}
"""Components with which a prefill runs over the ranks of a pipeline."""


class Match(Stages):
    """Another configuration whose count or cost an arm must have; it takes the place of keep ratios."""

    quantity: Literal["count", "flops"]
    """`count`: as many tokens after each stage; `flops`: one ratio for all stages, of equal prefill FLOPs."""
    preserve: Preserve
    """Tokens that it protects."""


class PromptSaliency(Contract):
    """Importances `saliency` and `oracle`: the gradient saliency of the prompt, by a backward pass."""

    measure: SaliencyMeasure
    """What saliency means."""
    loss_tokens: PositiveInt | None
    """Last tokens of the prompt whose NLL the gradient is of; null for all but the first, which nothing
    predicts. For the oracle null: the gradient is of what follows the prompt."""


class Pipeline(Contract):
    """The prefill split over ranks, consecutive layers each, one process per rank."""

    ranks: Annotated[int, Field(ge=2)]
    """Processes."""
    prune: Literal["before", "after"] = "before"
    """Which side of a boundary runs the stage that lies on it: the sender (`before`) or the receiver."""


class PruningComponents(Contract):
    """What tells one pruning configuration from another, beside its stages."""

    importance: Importance = "learned"
    """Where the scores of the prompt's tokens come from."""
    preserve: Preserve = Preserve()
    """Prompt tokens that no stage may drop, whatever their scores."""
    positions: Positions = "original"
    """RoPE indices of survivors: their own (`original`), renumbered at every stage, each layer continuing
    after its own last survivor (`packed`), or the full-length rotary tensor left in place (`stale`)."""
    mask: Mask = "hard"
    """`hard` removes dropped tokens from hidden states, keys, values and masks; `soft` removes nothing and
    weights attention by keep probabilities."""
    propagation: Propagation = "cascade"
    """`cascade`: what one stage dropped stays dropped; `local`: the next stage may take it up again, with the
    state it had; `stale_keys`: its state stays as it was, and its keys and values stay visible."""
    selection: Selection = "top_k"
    """`top_k`: a stage keeps the highest scores up to its count; `top_p`: the fewest tokens with a given mass
    of probability; `threshold`: all scores over a bound. Mass and bound are calibrated to top-k's counts."""
    pipeline: Pipeline | None = None
    """Ranks that share the prefill; null for a single process."""

    @model_validator(mode="after")
    def _keep_logits_are_learned(self) -> Self:
        # Selection rules are calibrated on the logits as they are.
        for key, usual, fitting in (("mask", "hard", TRAINED), ("selection", "top_k", TRAINED[:1])):
            value = getattr(self, key)
            if value != usual and self.importance not in fitting:
                raise conflict(
                    key,
                    f"'{value}' needs the keep logits of importance 'learned', not '{self.importance}';"
                    f" use '{usual}'",
                )
        return self

    @model_validator(mode="after")
    def _dropped_tokens_go_or_stay(self) -> Self:
        if self.mask == "soft" and self.propagation != "cascade":
            raise conflict(
                "propagation", f"'{self.propagation}' needs mask 'hard'; use 'cascade' with 'soft'"
            )
        everything_stays = self.mask == "soft" or self.propagation == "stale_keys"
        if everything_stays and self.positions != "original":
            raise conflict(
                "positions",
                f"'{self.positions}' renumbers survivors, but with mask '{self.mask}' and propagation"
                f" '{self.propagation}' dropped tokens stay; use 'original'",
            )
        return self

    @model_validator(mode="after")
    def _ranks_can_run_it(self) -> Self:
        for key, values in OVER_RANKS.items() if self.pipeline is not None else ():
            if getattr(self, key) not in values:
                raise conflict(
                    key,
                    f"'{getattr(self, key)}' does not run over pipeline ranks; use {' or '.join(values)},"
                    " or set 'pipeline' to null",
                )
        return self


class WindowTokens(Contract):
    """How held-out windows are cut."""

    prompt_tokens: PositiveInt
    """Tokens of the prompt, the part that is pruned."""
    continuation_tokens: PositiveInt
    """Tokens after the prompt whose NLL is the quality."""


class PrunedSeries(PruningComponents, Stages):
    """One pruning configuration, whatever is measured of it."""

    match: Match | None
    """Configuration whose count or cost takes the place of `keep_ratios`; null for none."""
    saliency: PromptSaliency | None
    """How importances `saliency` and `oracle` are computed; null for others."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt of a held-out window; costs are matched at this length."""
    seed: int
    """Seed of random scores."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _prunable(self) -> Self:
        check_prunable(self.preserve, self.prompt_tokens)
        return self

    @model_validator(mode="after")
    def _saliency_can_be_computed(self) -> Self:
        if (self.importance in BY_GRADIENT) != (self.saliency is not None):
            raise conflict(
                "saliency",
                "belongs to importance 'saliency' or 'oracle' and to no other; give both or neither",
            )
        if self.saliency is None:
            return self
        if self.importance == "oracle" and self.saliency.loss_tokens is not None:
            raise conflict(
                "saliency.loss_tokens", "the oracle's gradient is of what follows the prompt; set it to null"
            )
        if self.compute.dtype == "float16":
            raise conflict(
                "importance",
                f"'{self.importance}' takes gradients, which underflow in float16 (compute.dtype);"
                " use bfloat16 or float32",
            )
        loss_tokens, tokens = self.saliency.loss_tokens, self.prompt_tokens
        if loss_tokens is not None and loss_tokens >= tokens:
            raise conflict(
                "saliency.loss_tokens",
                f"{loss_tokens} is not less than the prompt's {tokens} tokens (evaluation.prompt_tokens);"
                " lower it",
            )
        return self

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.match is None:
            return self
        if (self.selection, self.propagation, self.mask) != ("top_k", "cascade", "hard"):
            raise conflict("match", "needs selection 'top_k', propagation 'cascade' and mask 'hard'")
        stages = len(self.match.layers)
        if self.match.quantity == "count" and stages != len(self.layers):
            raise conflict(
                "match",
                f"'count' needs the matched configuration's {stages} stages, not {len(self.layers)};"
                " use 'flops'",
            )
        return self


class TextSeries(PrunedSeries, WindowTokens):
    """Quality on held-out windows; the items are documents."""

    measure: Literal["text"] = "text"
    """What is measured."""


class RetrievalSeries(PrunedSeries):
    """Retrieval in a single process; the items are prompts."""

    measure: Literal["retrieval"] = "retrieval"
    """What is measured."""
    prompts: RetrievalPrompts
    """Which prompts."""

    @model_validator(mode="after")
    def _ranks_retrieve_nothing(self) -> Self:
        if self.pipeline is not None:
            raise conflict("prompts", "retrieval is not measured over pipeline ranks; set it to null")
        return self


class PrefillSeries(PrunedSeries, TimedRounds):
    """Prefill time on held-out windows; the items are documents."""

    measure: Literal["prefill"] = "prefill"
    """What is measured."""
    continuation_tokens: PositiveInt
    """Tokens after the prompt, which are not read: with them the windows are those of the quality."""

    @model_validator(mode="after")
    def _a_method_is_timed(self) -> Self:
        if self.importance == "oracle":
            raise conflict("importance", "'oracle' is no method, and its prefill is not timed; leave it out")
        return self


Series = Annotated[TextSeries | RetrievalSeries | PrefillSeries, Field(discriminator="measure")]
"""What a member of a panel of evaluations measures."""


class RankTime(Contract):
    """How one rank of a pipeline spent one prefill, seconds."""

    busy: NonNegativeFloat
    """Computing its layers and stages."""
    idle: NonNegativeFloat
    """Waiting for its input, handing over its output, or waiting for the end of the prefill."""


class TextSample(Contract):
    """One held-out window under one pruning configuration."""

    document: str
    """Identifier of the document."""
    nll: float
    """Mean NLL of the continuation after the pruned prompt, nats per token."""
    reference_nll: float
    """The same for the unpruned model."""
    agreement: Proportion
    """Share of the continuation's tokens for which both models' most probable token is the same."""
    kl: NonNegativeFloat
    """KL divergence of the pruned model's next-token distribution from the unpruned one's, a mean over the
    continuation, nats."""
    living: tuple[NonNegativeInt, ...]
    """Tokens that enter each layer during prefill."""
    flops: PositiveInt
    """Floating-point operations of the pruned prefill, scorers (or their backward pass) included; those of
    the oracle are not."""
    kv_bytes: NonNegativeInt
    """Bytes of the KV cache that the pruned prefill leaves."""
    boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """Bytes of hidden states sent over each pipeline boundary in the pruned prefill; empty without ranks."""
    reference_boundary_bytes: tuple[NonNegativeInt, ...] = ()
    """The same for the unpruned model."""


class PrefillSample(Contract):
    """Prefill times of one held-out window under one pruning configuration."""

    document: str
    """Identifier of the document."""
    pairs: tuple[TimedPair, ...]
    """Rounds in which arm and reference ran: a third where the first two differ much. Empty
    where ranks share cores, which makes their times those of the machine."""
    ranks: tuple[RankTime, ...] = ()
    """How each rank spent the last timed pruned prefill; empty without ranks or where it is not timed."""


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


class SeriesTotals(Contract):
    """Facts of one pruning configuration that do not differ from item to item."""

    keep_ratios: tuple[Ratio, ...]
    """Keep ratios in use, after matching."""
    reference_prefill_flops: PositiveFloat
    """Floating-point operations of the unpruned prefill of a window's prompt."""
    reference_kv_bytes: PositiveInt
    """Bytes of the KV cache that it leaves."""
    training: Training | None = None
    """How the scorer was trained; null where none is used."""
    calibration: Calibration | None = None
    """Numbers of a calibrated selection rule; null for top-k."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    cores: PositiveInt
    """CPU cores this process could use."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA), with all arms of its panel."""
