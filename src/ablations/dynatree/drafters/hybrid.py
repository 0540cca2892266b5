"""A distilled draft and the n-gram drafter as one."""

import torch
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree

# Each drafter names at least so many tokens, for the other's first choices to meet their probability.
LEAST_NAMED = 4


class HybridDrafter:
    """Proposes from a mixture of two drafters, and from the cheap one alone where that one is sure.

    A token has its probability in the costly drafter times `share` plus that in the cheap one times the
    rest; where a drafter does not name it among its most probable ones, that part is left out. In a round
    in which the cheap drafter's first choice after the root has at least probability `sure`, the costly one
    is not asked; it has to bear rounds that were drafted without it.

    Args:
        costly: A drafter.
        cheap: Another one, over the same vocabulary.
        share: Weight of the costly one, between 0 and 1.
        sure: Least probability with which the cheap one drafts a round alone; above 1 it never does.
    """

    def __init__(self, costly: Drafter, cheap: Drafter, share: float, sure: float) -> None:
        self._costly = costly
        self._cheap = cheap
        self._share = share
        self._sure = sure
        self._alone = False

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`; the costly drafter was asked for as many or fewer."""
        return self._cheap.forwards

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Both read the prompt; see `Drafter.prefill`."""
        self._costly.prefill(prompt, states)
        self._cheap.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable tokens of the mixture, or of the cheap drafter; see `Drafter.propose`."""
        named = max(branching, LEAST_NAMED)
        others, added = self._cheap.propose(tree, level, named)
        if level.start == 0:
            self._alone = bool(added[0, 0] >= self._sure)
        if self._alone:
            return others[:, :branching], added[:, :branching]
        tokens, mixed = self._costly.propose(tree, level, named)
        mixed, added = self._share * mixed, (1 - self._share) * added
        same = tokens[:, :, None] == others[:, None, :]
        mixed = mixed + (added[:, None, :] * same).sum(dim=2)
        # What both name has its whole probability on the costly one's side.
        added = added.masked_fill(same.any(dim=1), 0.0)
        best = torch.cat([mixed, added], dim=1).topk(branching, dim=1)
        return torch.cat([tokens, others], dim=1).gather(1, best.indices), best.values

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """Both end the round; see `Drafter.commit`."""
        self._costly.commit(tree, path, states)
        self._cheap.commit(tree, path, states)
