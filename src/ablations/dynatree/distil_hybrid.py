"""Two drafters as one: the mixture of what they propose."""

import torch
from torch import Tensor

from ablations.dynatree.drafter import Drafter
from ablations.dynatree.tree import TokenTree

# Each drafter names at least so many tokens, for the other's first choices to meet their probability.
LEAST_NAMED = 4


class HybridDrafter:
    """Proposes from the mixture of two drafters' distributions, as far as each names tokens.

    A token has its probability in `first` times `share` plus that in `second` times the rest; where a
    drafter does not name it among its most probable ones, that part is left out.

    Args:
        first: A drafter.
        second: Another one, over the same vocabulary.
        share: Weight of the first, between 0 and 1.
    """

    def __init__(self, first: Drafter, second: Drafter, share: float) -> None:
        self._first = first
        self._second = second
        self._share = share

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self._first.forwards

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Both read the prompt; see `Drafter.prefill`."""
        self._first.prefill(prompt, states)
        self._second.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable tokens of the mixture; see `Drafter.propose`."""
        named = max(branching, LEAST_NAMED)
        tokens, mixed = self._first.propose(tree, level, named)
        others, added = self._second.propose(tree, level, named)
        mixed, added = self._share * mixed, (1 - self._share) * added
        same = tokens[:, :, None] == others[:, None, :]
        mixed = mixed + (added[:, None, :] * same).sum(dim=2)
        # What both name has its whole probability on the first one's side.
        added = added.masked_fill(same.any(dim=1), 0.0)
        best = torch.cat([mixed, added], dim=1).topk(branching, dim=1)
        return torch.cat([tokens, others], dim=1).gather(1, best.indices), best.values

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """Both end the round; see `Drafter.commit`."""
        self._first.commit(tree, path, states)
        self._second.commit(tree, path, states)
