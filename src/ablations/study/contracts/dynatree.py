"""Specs and samples of the DynaTree jobs (tree speculative decoding)."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Compute, Named, Split

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


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

    tau: Probability | None = 0.05
    """Paths whose cumulative draft probability falls under this are not drafted; null prunes nothing."""
    max_nodes: PositiveInt = 256
    """Most nodes below the root; nodes of higher path probability go first."""


class History(Contract):
    """Proportional control of a dynamic tree towards a target acceptance, round by round.

    The acceptance of a round is the share of the deepest drafted path that the target accepted; its
    running mean starts at the target with every prompt. Its excess over the target, times a gain, moves
    base depth and `rho_stop`.
    """

    target: Share = 0.5
    """Acceptance aimed at: above it trees grow, under it they shrink."""
    smoothing: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Weight of the last round in the running mean."""
    depth_gain: NonNegativeFloat = 6.0
    """Levels added to the base depth per unit of excess acceptance (rounded; 1 to `max_depth` levels)."""
    threshold_gain: NonNegativeFloat = 0.2
    """What is taken from `rho_stop` per unit of excess acceptance."""
    threshold_range: tuple[Probability, Probability] = (0.02, 0.5)
    """Least and greatest `rho_stop`."""


class DynamicTree(Contract):
    """A tree whose breadth and depth follow the draft's confidence; `shape.depth` is its base depth."""

    kind: Literal["dynamic"]
    """Kind of adaptation."""
    breadths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 3)
    """Children of a node, the fewest where the draft is surest; in the place of `shape.branching`."""
    confidences: tuple[Probability, ...] = (0.9, 0.4)
    """Least probabilities of the draft's first choice for all breadths but the last, falling."""
    max_depth: PositiveInt = 8
    """Most levels below the root."""
    rho_stop: Probability = 0.1
    """A node whose path probability is under this has no children."""
    rho_deep: Probability = 0.3
    """From the base depth on, only nodes of at least this path probability have children."""
    history: History | None = None
    """Adaptation to the rounds before; null for none."""

    @model_validator(mode="after")
    def _one_confidence_less(self) -> Self:
        if len(self.confidences) != len(self.breadths) - 1:
            raise ValueError("'confidences' needs one value less than 'breadths'")
        if list(self.confidences) != sorted(self.confidences, reverse=True):
            raise ValueError("'confidences' must fall")
        return self


class CostAwareTree(Contract):
    """A tree of the nodes whose expected gain exceeds their measured cost, within `shape` and `pruning`."""

    kind: Literal["cost_aware"]
    """Kind of adaptation."""


Adaptation = Annotated[DynamicTree | CostAwareTree, Field(discriminator="kind")]


class TeacherSpec(Contract):
    """Job of `ablations.dynatree.distil_teacher`: what the target writes for a draft to learn from."""

    texts: NonNegativeInt
    """Beginnings of training documents that the target continues."""
    questions: NonNegativeInt
    """Questions that the target makes up in its chat template, and answers."""
    prompt_tokens: PositiveInt = 96
    """Tokens of the beginning of a document."""
    new_tokens: PositiveInt = 160
    """Tokens that are written after it; questions and answers are as long in all."""
    batch: PositiveInt = 48
    """Sequences written at once."""
    seed: NonNegativeInt = 0
    """Seed of windows and questions."""
    compute: Compute = Compute(dtype="bfloat16")
    """How the job computes."""


class DistilSpec(Contract):
    """Job of `ablations.dynatree.distil`: training of a draft on what the target wrote."""

    start: Named | None = None
    """Draft that training goes on from (a `draft.safetensors`, relative to the working directory); null
    starts from the ridge regression."""
    vocabulary: PositiveInt = 8192
    """Tokens that the draft's head knows, the most frequent ones; those of `start` where there is one."""
    unroll: PositiveInt = 2
    """Tokens drafted in a row while training, each on the draft's own states before."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Weight of a drafted token's loss against that of the token before."""
    epochs: PositiveInt = 1
    """Passes over the sequences."""
    batch: PositiveInt = 4
    """Sequences per step."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate: of Muon for the matrices, of AdamW for the rest."""
    heldout: PositiveInt = 32
    """Sequences that are not trained on, and tell how often the draft agrees with the target."""
    seed: NonNegativeInt = 0
    """Seed of initial weights and order."""
    compute: Compute = Compute(dtype="bfloat16")
    """How the job computes; products alone are in this data type, weights stay in float32."""


class NgramDrafter(Contract):
    """Interpolated n-gram language model over training text and live context; needs no training."""

    kind: Literal["ngram"]
    """Kind of drafter."""
    order: Annotated[int, Field(ge=1, le=8)] = 4
    """Longest n-gram (context of order - 1 tokens)."""
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the texts whose training splits are counted."""
    context_weight: NonNegativeFloat = 4.0
    """Weight of one occurrence in the live context against one in the training text."""


class NeuralDrafter(Contract):
    """A causal LM that shares the target's vocabulary, with its own KV cache."""

    kind: Literal["neural"]
    """Kind of drafter."""
    model: str
    """Name of the draft model."""


class PromptLookup(Contract):
    """What followed the longest suffix of the live text when it occurred before; needs no model.

    A match says nothing about how likely its continuation is, so the probability is stated here: with
    probability p, a node's i-th proposal (counted from 0) has (1 - p)^i p. A path of n first proposals
    has p^n, and `tau` therefore bounds the length of what is looked up.
    """

    kind: Literal["prompt_lookup"] = "prompt_lookup"
    """Kind of drafter."""
    longest: PositiveInt = 8
    """Longest suffix that is matched, tokens."""
    shortest: PositiveInt = 1
    """Shortest suffix that is matched, tokens."""
    probability: Probability = 0.7
    """Stated probability that a looked-up token is right."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError("'shortest' must be at most 'longest'")
        return self


class DistilledDrafter(Contract):
    """A draft of one decoder layer that the study distils from its target (`dynatree.distilling.model`)."""

    kind: Literal["distilled"]
    """Kind of drafter."""
    text: str
    """Name of the text whose training split the target continues."""
    teacher: TeacherSpec
    """What the target writes to learn from."""
    distil: DistilSpec = DistilSpec()
    """How the draft is trained."""


class HybridDrafter(Contract):
    """Mixture of a distilled draft and n-grams; the n-grams alone draft a round where they are sure."""

    kind: Literal["hybrid"]
    """Kind of drafter."""
    distilled: str
    """Name of a drafter of kind `distilled`."""
    ngram: str
    """Name of a drafter of kind `ngram`."""
    share: Share = 0.5
    """Weight of the distilled draft's probabilities; the n-gram drafter's have the rest."""
    sure: PositiveFloat = 0.8
    """Least probability of its first choice with which the n-gram drafter drafts a round alone; above 1 it
    never does."""


Drafter = Annotated[
    NgramDrafter | NeuralDrafter | PromptLookup | DistilledDrafter | HybridDrafter,
    Field(discriminator="kind"),
]


class NgramSpec(Contract):
    """Job of `ablations.dynatree.fit_ngram`: counts of training splits, as the target tokenises them."""

    order: PositiveInt
    """Longest n-gram."""
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the inputs whose training splits are counted."""


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


class DistilledDraftSpec(Contract):
    """A draft distilled from the target, as a decoding job sees it."""

    kind: Literal["distilled"] = "distilled"
    """Kind of drafter."""


class HybridDraftSpec(Contract):
    """Mixture of a distilled draft and the n-gram drafter, as a decoding job sees it."""

    kind: Literal["hybrid"] = "hybrid"
    """Kind of drafter."""
    share: Share = 0.5
    """Weight of the distilled draft's probabilities; the n-gram drafter's have the rest."""
    sure: PositiveFloat = 0.8
    """Least probability of its first choice with which the n-gram drafter drafts a round alone; above 1 it
    never does."""
    context_weight: NonNegativeFloat
    """Weight of one occurrence in the live context against one in the training text."""


DraftSpec = NgramDraftSpec | NeuralDraftSpec | PromptLookup | DistilledDraftSpec | HybridDraftSpec


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
    chat: bool = False
    """Whether documents are a user's turn, to be put into the target's chat template."""


class Prompted(Contract):
    """What every job that decodes prompts is told."""

    prompts: tuple[PromptSet, ...]
    """Which prompts."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt; end of sequence stops earlier."""


class CostSpec(Prompted):
    """Job of `ablations.dynatree.calibrate_costs`: what drafting and verifying cost, and bring.

    Its prompts are validation prompts, whose greedy continuations say which drafted nodes are accepted.
    """

    drafter: DraftSpec
    """Who drafts."""
    shape: Shape
    """Largest depth and branching of a tree."""
    max_nodes: PositiveInt
    """Most nodes of a tree below its root."""
    prefix: PositiveInt
    """Tokens in the cache while costs are measured."""
    repeats: PositiveInt
    """Timed forwards of each size; the fastest counts."""
    compute: Compute
    """How the job computes."""


def tree_nodes(depth: int, branching: int, max_nodes: int) -> int:
    """Most nodes below the root of a tree of this depth and branching, under a cap."""
    return min(max_nodes, sum(branching**level for level in range(1, depth + 1)))


def row_counts(most: int) -> list[int]:
    """Rows of a calibration's target forwards: all up to 8, then four to every doubling, and `most`."""
    counts = {round(8 * 2 ** (step / 4)) for step in range(64)} | set(range(1, 9)) | {most}
    return sorted(count for count in counts if count <= most)


class Costs(Contract):
    """What `ablations.dynatree.calibrate_costs` found: seconds, and probabilities as they turn out."""

    rows: tuple[PositiveInt, ...]
    """Rows of a target forward (root and nodes), rising from 1."""
    verify: tuple[PositiveFloat, ...]
    """Seconds of a target forward over so many rows, never falling."""
    draft_level: NonNegativeFloat
    """Seconds of drafting a level, however wide."""
    draft_row: NonNegativeFloat
    """Seconds of drafting from one node more."""
    stated: tuple[NonNegativeFloat, ...]
    """Path probabilities that the draft states, rising."""
    accepted: tuple[Share, ...]
    """Shares of the nodes of these path probabilities that the target accepts, never falling."""
    child: Share
    """Share of accepted nodes with a drafted level below of which a child is accepted too."""
    rate: PositiveFloat
    """Tokens per second of trees chosen by these costs on the validation prompts: the price of time."""


class ArmSpec(Contract):
    """One decoding configuration."""

    drafter: DraftSpec | None
    """Who drafts; null decodes autoregressively."""
    shape: Shape | None
    """Shape of a draft; null without a drafter."""
    pruning: Pruning | None
    """What keeps the tree small; null without a drafter."""
    adaptation: Adaptation | None = None
    """How the tree adapts to the draft's probabilities; null for a tree of fixed shape."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.drafter is not None and (self.shape is None or self.pruning is None):
            raise ValueError("'shape' and 'pruning' are needed with a drafter")
        return self


class DecodeSpec(ArmSpec, Prompted):
    """Job of `ablations.dynatree.decode`: one decoding configuration against its reference."""

    reference: Literal["autoregressive", "generate"]
    """Interleaved reference: this project's static-cache decoding, or `transformers` `generate`."""
    repeats: PositiveInt
    """Interleaved pairs per prompt, the order alternating."""
    discarded: NonNegativeInt = 0
    """Whole pairs of every prompt before those, which are not recorded."""
    warmup: NonNegativeInt = 1
    """Untimed runs of arm and reference on every prompt (on the first one, where pairs are discarded) before
    the first timed one; short ones of what takes a token at a time."""
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


class Departure(Contract):
    """An emitted token that is not the target's greedy one, or the first that is another than expected."""

    position: NonNegativeInt
    """Place among the new tokens, counted from 0."""
    gap: NonNegativeFloat
    """How far its logit lies below the greatest, when the target reads what was emitted in one forward; at
    the first departure that of the expected token, where it lies further."""


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
    """How many departures there are."""
    departures: tuple[Departure, ...] = ()
    """Where the arm departed from the target's greedy tokens in the last repeat: ties, all of them."""
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
    drafted_per_round: tuple[NonNegativeInt, ...] = ()
    """Drafted nodes that the target verified in each round; empty without a drafter."""
    tested_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds in which all nodes above were accepted and children were drafted."""
    accepted_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds of `tested_per_depth` in which a child was accepted and emitted."""
    draft_seconds: NonNegativeFloat
    """Time spent in the drafter after draft prefill in the last timed repeat."""
    verify_seconds: NonNegativeFloat
    """Time spent in target forwards after prefill in the last timed repeat."""
    bookkeeping_seconds: NonNegativeFloat = 0.0
    """Rest of the rounds: growing and choosing the tree, masks, acceptance, compacting the cache."""
    pairs: tuple[DecodePair, ...]
    """Times."""


class DecodeTotals(Contract):
    """Facts of a whole decoding job."""

    tie_margin: NonNegativeFloat
    """Difference of logits up to which a departure counts as a tie: fixed in float32; in lower precision
    measured in this job when something departed, and 0 where nothing did."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""
