"""Growth of the tree of one round: the interface, and a fixed shape pruned by path probability."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree

# Least threshold of a path probability: a child of probability 0 is not a proposal.
SMALLEST_POSITIVE = 5e-324


class Growth(Protocol):
    """Grows the tree of each round; may keep state across the rounds of one prompt."""

    @property
    def max_depth(self) -> int:
        """Most levels below the root."""
        ...

    def start(self) -> None:
        """Begin a prompt: reset the state kept across rounds."""
        ...

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> Tensor | None:
        """Add levels below the root of a planted tree.

        Args:
            tree: A planted tree.
            drafter: Proposes the nodes, in one call per level.
            levels: Most levels that could still be emitted.

        Returns:
            Rows to verify, ``[rows]`` int64 ascending, the root first and each with its parent; None for all
            rows.
        """
        ...

    def learn(self, depth: int, accepted: int) -> None:
        """End a round, and adapt to its acceptance.

        Args:
            depth: Levels of the tree that was verified.
            accepted: Draft tokens accepted.
        """
        ...


@dataclass(frozen=True)
class FixedGrowth:
    """Up to `max_depth` levels of `branching` children per node, pruned by path probability.

    A child is dropped if its path probability (the product of the draft's probabilities from the root) is
    below `tau`.

    Attributes:
        max_depth: Most levels; a linear draft of K tokens has K levels and branching 1.
        branching: Children per node.
        tau: Least path probability of a child; None has no limit.
    """

    max_depth: int
    branching: int
    tau: float | None

    def start(self) -> None:
        """Nothing to do: no state is kept across rounds."""

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> None:
        """Add up to `levels` levels; see `Growth.grow`. All rows are verified."""
        level = slice(0, 1)
        for _ in range(min(levels, self.max_depth)):
            if not tree.room:
                return
            tokens, probabilities = drafter.propose(tree, level, self.branching)
            paths = probabilities * tree.probabilities[level, None]
            level = add_children(tree, level, tokens, paths, paths >= (self.tau or SMALLEST_POSITIVE))
            if level.start == level.stop:
                return

    def learn(self, depth: int, accepted: int) -> None:
        """Nothing to do: no state is kept across rounds."""


def add_children(tree: TokenTree, level: slice, tokens: Tensor, paths: Tensor, wanted: Tensor) -> slice:
    """Append the wanted children of a level; if they exceed the room, those of highest path probability.

    Args:
        tree: The tree so far.
        level: The n rows of the newest level.
        tokens: ``[n, B]`` int64, tokens of the children.
        paths: ``[n, B]`` float64, path probabilities of the children.
        wanted: ``[n, B]`` bool; must be False where the probability is 0, which is not a proposal.

    Returns:
        Rows of the new level; empty if no child was added.
    """
    branching = tokens.shape[1]
    paths = paths.flatten()
    children = wanted.flatten().nonzero()[:, 0]
    if len(children) > tree.room:
        best = paths[children].sort(descending=True, stable=True).indices[: tree.room]
        children = children[best.sort().values]
    if not len(children):
        return slice(tree.size, tree.size)
    return tree.add_level(tokens.flatten()[children], level.start + children // branching, paths[children])
