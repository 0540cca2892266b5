"""One decoding configuration: the shape and pruning of its trees, how they adapt, and who drafts."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion, conflict
from ablations.specs.dynatree.costs import GrowthKind

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class Shape(Contract):
    """Shape of what is drafted in one round."""

    method: Literal["linear", "tree"] = "tree"
    """`linear` drafts one path, `tree` a token tree."""
    depth: PositiveInt = 7
    """Levels below the root (D; K of a linear draft)."""
    branching: PositiveInt = 2
    """Children per node (B); 1 for `linear`."""


class TreePruning(Contract):
    """What keeps the tree small."""

    tau: Probability | None = 0.05
    """Paths whose cumulative draft probability falls under this are not drafted; null prunes nothing."""
    max_nodes: PositiveInt = 256
    """Most nodes below the root; nodes of higher path probability go first."""


def tree_nodes(depth: int, branching: int, max_nodes: int) -> int:
    """Most nodes below the root of a tree of this depth and branching, under a cap."""
    return min(max_nodes, sum(branching**level for level in range(1, depth + 1)))


class History(Contract):
    """Proportional control of a dynamic tree towards a target acceptance, round by round.

    The acceptance of a round is the share of the deepest drafted path that the target accepted; its
    running mean starts at the target with every prompt. Its excess over the target, times a gain, moves
    base depth and `rho_stop`.
    """

    target: Proportion = 0.5
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


def check_tree(shape: Shape, pruning: TreePruning, adaptation: Adaptation | None) -> None:
    """Check, for a validator of a contract with these keys, that they go together.

    Raises:
        ValidationError: a linear draft that branches, adapts or is pruned, or a cap under the depth, by which
            no path could reach it.
    """
    if shape.method == "linear":
        if adaptation is not None:
            raise conflict("adaptation", "a linear draft has a fixed length; set it to null")
        if shape.branching != 1:
            raise conflict("shape.branching", "a linear draft is one path; set it to 1")
        if pruning.tau is not None:
            raise conflict("pruning.tau", "a linear draft is not pruned; set it to null")
    depth = shape.depth
    if isinstance(adaptation, DynamicTree):
        depth = adaptation.max_depth
        if shape.depth > depth:
            raise conflict(
                "adaptation.max_depth", f"{depth} is less than the base depth {shape.depth}; raise it"
            )
    check_room(depth, pruning.max_nodes, "pruning.max_nodes")


def check_room(depth: int, max_nodes: int, key: str) -> None:
    """Check, for a validator of a contract with a `key` that caps trees, that a path has room.

    Raises:
        ValidationError: the cap is under the depth.
    """
    if max_nodes < depth:
        raise conflict(
            key, f"{max_nodes} nodes cannot hold a path of depth {depth}; raise it or lower the depth"
        )


SOURCES = ("ngram", "neural", "distilled", "prompt_lookup")
"""Kinds of drafters that are no mixture of others."""

DRAFTED_FROM = ("draft", "ngram", "distilled", *(f"{kind}_acceptance" for kind in SOURCES), "costs")
"""Inputs of a decoding job that its drafter and its trees are made of, by the names that it knows them by."""


class NgramDraftSpec(Contract):
    """Interpolated n-gram language model over training text and live context; needs no training."""

    kind: Literal["ngram"] = "ngram"
    """Kind of drafter."""
    context_weight: NonNegativeFloat = 4.0
    """Weight of one occurrence in the live context against one in the training text."""


class NeuralDraftSpec(Contract):
    """A causal LM that shares the target's vocabulary, with its own KV cache."""

    kind: Literal["neural"] = "neural"
    """Kind of drafter."""


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


class DistilledDraftSpec(Contract):
    """A draft of one decoder layer that was distilled from the target (`dynatree.distilling.model`)."""

    kind: Literal["distilled"] = "distilled"
    """Kind of drafter."""


class Mixture(Contract):
    """Mixture of a distilled draft and n-grams; the n-grams alone draft a round where they are sure."""

    kind: Literal["hybrid"] = "hybrid"
    """Kind of drafter."""
    share: Proportion = 0.5
    """Weight of the distilled draft's probabilities; the n-gram drafter's have the rest."""
    sure: PositiveFloat = 0.8
    """Least probability of its first choice with which the n-gram drafter drafts a round alone; above 1 it
    never does."""


class HybridDraftSpec(Mixture):
    """Mixture of a distilled draft and n-grams, with the weight that the n-grams give the live context."""

    context_weight: NonNegativeFloat
    """Weight of one occurrence in the live context against one in the training text."""


SelfContained = PromptLookup
"""Drafters that need no artefact: a study configures them as a decoding job is told of them."""

DraftSpec = Annotated[
    NgramDraftSpec | NeuralDraftSpec | DistilledDraftSpec | HybridDraftSpec | SelfContained,
    Field(discriminator="kind"),
]


class Calibrated(Contract):
    """Whether drafters are taken at their word."""

    calibrated: bool = False
    """Whether drafted tokens have the probabilities with which such tokens turned out on validation text,
    instead of those that their drafter states; of a mixture, those of both its parts."""


class ArmSpec(Calibrated):
    """One decoding configuration."""

    drafter: DraftSpec | None
    """Who drafts; null decodes autoregressively."""
    shape: Shape | None
    """Shape of a draft; null without a drafter."""
    pruning: TreePruning | None
    """What keeps the tree small; null without a drafter."""
    adaptation: Adaptation | None = None
    """How the tree adapts to the draft's probabilities; null for a tree of fixed shape."""

    @property
    def growth(self) -> GrowthKind:
        """What decides which nodes a tree has."""
        return self.adaptation.kind if self.adaptation else "fixed"

    @model_validator(mode="after")
    def _drafts_a_tree(self) -> Self:
        if self.drafter is None:
            return self
        if self.shape is None or self.pruning is None:
            raise ValueError("'shape' and 'pruning' are needed with a drafter")
        check_tree(self.shape, self.pruning, self.adaptation)
        return self
