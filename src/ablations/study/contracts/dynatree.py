"""Specs and samples of the DynaTree jobs (tree speculative decoding)."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Compute, Split


class Shape(Contract):
    """Shape of what is drafted in one round."""

    method: Literal["linear", "tree"] = "tree"
    """`linear` drafts one path, `tree` a token tree."""
    depth: PositiveInt = 7
    """Levels below the root (D; K of a linear draft)."""
    branching: PositiveInt = 2
    """Children per node (B); 1 for `linear`."""


class Pruning(Contract):
    """What keeps the tree small."""

    tau: Annotated[float, Field(gt=0.0, lt=1.0)] | None = 0.05
    """Paths whose cumulative draft probability falls under this are not drafted; null prunes nothing."""
    max_nodes: PositiveInt = 256
    """Most nodes below the root; nodes of higher path probability go first."""


class NgramDrafter(Contract):
    """Interpolated n-gram language model over training text and live context; needs no training."""

    kind: Literal["ngram"]
    """Kind of drafter."""
    order: Annotated[int, Field(ge=1, le=8)] = 4
    """Longest n-gram (context of order - 1 tokens)."""
    text: str
    """Name of the text whose training split is counted."""
    context_weight: NonNegativeFloat = 4.0
    """Weight of one occurrence in the live context against one in the training text."""


class NeuralDrafter(Contract):
    """A causal LM that shares the target's vocabulary, with its own KV cache."""

    kind: Literal["neural"]
    """Kind of drafter."""
    model: str
    """Name of the draft model."""


Drafter = Annotated[NgramDrafter | NeuralDrafter, Field(discriminator="kind")]


class NgramSpec(Contract):
    """Job of `ablations.dynatree.fit_ngram`: counts of the training split, as the target tokenises it."""

    order: PositiveInt
    """Longest n-gram."""


class NgramDraftSpec(Contract):
    """The n-gram drafter as a decoding job sees it."""

    kind: Literal["ngram"] = "ngram"
    """Kind of drafter."""
    context_weight: NonNegativeFloat
    """Weight of one occurrence in the live context against one in the training text."""


class NeuralDraftSpec(Contract):
    """The neural drafter as a decoding job sees it."""

    kind: Literal["neural"] = "neural"
    """Kind of drafter."""


class PromptSet(Contract):
    """Decoding prompts of one kind."""

    kind: str
    """Name of the kind, as tables call it."""
    text: str
    """Name of the input that holds the documents."""
    split: Split
    """Split the prompts are taken from."""
    count: PositiveInt
    """How many prompts."""
    tokens: PositiveInt | None
    """Cut each document to its first so many tokens; null takes it whole."""


class DecodeSpec(Contract):
    """Job of `ablations.dynatree.decode`: one decoding configuration against its reference."""

    drafter: NgramDraftSpec | NeuralDraftSpec | None
    """Who drafts; null decodes autoregressively."""
    shape: Shape | None
    """Shape of a draft; null without a drafter."""
    pruning: Pruning | None
    """What keeps the tree small; null without a drafter."""
    reference: Literal["autoregressive", "generate"]
    """Interleaved reference: this project's static-cache decoding, or `transformers` `generate`."""
    prompts: tuple[PromptSet, ...]
    """Which prompts."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt; end of sequence stops earlier."""
    repeats: PositiveInt
    """Interleaved pairs per prompt, the order alternating."""
    warmup: NonNegativeInt = 1
    """Untimed pairs before the first timed one."""
    compute: Compute
    """How the job computes."""


class DecodePair(Contract):
    """One interleaved measurement, seconds."""

    arm: PositiveFloat
    """Whole generation by the arm, prefill and draft prefill included."""
    arm_first: PositiveFloat
    """Until the arm's first token."""
    reference: PositiveFloat
    """Whole generation by the reference, prefill included."""
    reference_first: PositiveFloat | None
    """Until the reference's first token; null where the reference does not tell."""


class DecodeSample(Contract):
    """One prompt under one decoding configuration."""

    document: str
    """Identifier of the prompt."""
    kind: str
    """Kind of prompt."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt."""
    new_tokens: PositiveInt
    """Tokens generated, the end-of-sequence token included."""
    stopped: bool
    """Whether end of sequence came before the limit."""
    matched: bool
    """Whether the emitted tokens equal the target's own greedy tokens."""
    ties: NonNegativeInt
    """Departures within the stated top-2 margin (0 in float32, where none is allowed)."""
    repeated_4grams: Annotated[float, Field(ge=0.0, le=1.0)]
    """Share of generated 4-grams that occurred before in the generated text."""
    target_forwards: NonNegativeInt
    """Target forwards after prefill, one per round; 0 where the first token ends the sequence."""
    draft_forwards: NonNegativeInt
    """Draft forwards (tree levels) after draft prefill."""
    drafted: NonNegativeInt
    """Drafted nodes that the target verified."""
    accepted: NonNegativeInt
    """Draft tokens accepted and emitted; bonus tokens are not counted."""
    accepted_per_round: tuple[NonNegativeInt, ...]
    """Accepted draft tokens of each round, in order."""
    draft_seconds: NonNegativeFloat
    """Time spent drafting in the last timed repeat."""
    verify_seconds: NonNegativeFloat
    """Time spent in target forwards after prefill in the last timed repeat."""
    pairs: tuple[DecodePair, ...]
    """Times."""


class DecodeTotals(Contract):
    """Facts of a whole decoding job."""

    tie_margin: NonNegativeFloat
    """Top-2 logit margin within which a departure counts as a tie; 0 in float32."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""
