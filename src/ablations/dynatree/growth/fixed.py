"""How the tree of one round grows: the interface of all ways, and the fixed shape pruned by probability."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree

# The least threshold that a path probability can meet: a probability of 0 is no proposal.
ANY = 5e-324


class Growth(Protocol):
    """Grows one tree a round; may keep state across the rounds of one prompt."""

    @property
    def max_depth(self) -> int:
        """Most levels below the root."""
        ...

    def start(self) -> None:
        """Forget what the rounds of another prompt taught."""
        ...

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> Tensor | None:
        """Add levels below the root of a planted tree.

        Args:
            tree: A planted tree.
            drafter: Asked once per level.
            levels: Most levels that could still be emitted.

        Returns:
            Rows worth verifying, ``[rows]`` int64 ascending, each with its parent and the root first;
            None for all.
        """
        ...

    def learn(self, depth: int, accepted: int) -> None:
        """End a round.

        Args:
            depth: Levels of the tree that was verified.
            accepted: Draft tokens accepted.
        """
        ...


@dataclass(frozen=True)
class FixedGrowth:
    """Up to `max_depth` levels of `branching` children per node, pruned by path probability.

    A child whose path probability (the product of the draft's probabilities from the root) falls
    under `tau` is dropped, and so is everything below it.

    Attributes:
        max_depth: Most levels; a linear draft of K tokens has K, and a branching of 1.
        branching: Children per node.
        tau: Threshold on the path probability; None prunes nothing.
    """

    max_depth: int
    branching: int
    tau: float | None

    def start(self) -> None:
        """Nothing is kept from round to round."""

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> None:
        """Add up to `levels` levels; see `Growth.grow`. All of it is worth verifying."""
        level = slice(0, 1)
        for _ in range(min(levels, self.max_depth)):
            if not tree.room:
                return
            tokens, probabilities = drafter.propose(tree, level, self.branching)
            paths = probabilities * tree.probabilities[level, None]
            level = add_children(tree, level, tokens, paths, paths >= (self.tau or ANY))
            if level.start == level.stop:
                return

    def learn(self, depth: int, accepted: int) -> None:
        """Nothing is kept from round to round."""


def add_children(tree: TokenTree, level: slice, tokens: Tensor, paths: Tensor, wanted: Tensor) -> slice:
    """Append the wanted children of a level; where they do not fit, those of highest path probability.

    Args:
        tree: The tree so far.
        level: Rows of its newest level, n of them.
        tokens: ``[n, B]`` int64, the children.
        paths: ``[n, B]`` float64, their path probabilities.
        wanted: ``[n, B]`` bool; False where the probability is 0, which is no proposal.

    Returns:
        Rows of the new level; empty if no child was added.
    """
    branching = tokens.shape[1]
    paths = paths.flatten()
    chosen = wanted.flatten().nonzero()[:, 0]
    if len(chosen) > tree.room:
        best = paths[chosen].sort(descending=True, stable=True).indices[: tree.room]
        chosen = chosen[best.sort().values]
    if not len(chosen):
        return slice(tree.size, tree.size)
    return tree.add_level(tokens.flatten()[chosen], level.start + chosen // branching, paths[chosen])
