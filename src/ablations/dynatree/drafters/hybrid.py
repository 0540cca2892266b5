"""A mixture of two drafters, such as a distilled draft and n-grams."""

import torch
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree

# Ask each drafter for at least 4 tokens, so that the other's favourites usually have a probability in both.
MIN_PROPOSALS = 4


class HybridDrafter:
    """Proposes from a mixture of two drafters, or from the cheap drafter only when it is sure.

    The probability of a token is `share` times its probability in the costly drafter, plus 1 - `share` times
    its probability in the cheap drafter; a drafter that does not propose the token adds 0. If the cheap
    drafter's most probable token after the root has at least probability `sure`, the cheap drafter drafts the
    whole round. So the costly drafter must support rounds that were drafted without it.

    Args:
        costly: A drafter.
        cheap: Another drafter, over the same vocabulary.
        share: Weight of the costly drafter, between 0 and 1.
        sure: Least probability at which the cheap drafter drafts a round alone; above 1 it never does.

    Attributes:
        alone: Whether the cheap drafter drafts this round alone.
    """

    def __init__(self, costly: Drafter, cheap: Drafter, share: float, sure: float) -> None:
        self._costly = costly
        self._cheap = cheap
        self._share = share
        self._sure = sure
        self.alone = False

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`; the costly drafter proposed as many or fewer."""
        return self._cheap.forwards

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Let both drafters read the prompt; see `Drafter.prefill`."""
        self._costly.prefill(prompt, states)
        self._cheap.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable tokens of the mixture, or of the cheap drafter; see `Drafter.propose`."""
        count = max(branching, MIN_PROPOSALS)
        cheap_tokens, cheap = self._cheap.propose(tree, level, count)
        if level.start == 0:
            self.alone = bool(cheap[0, 0] >= self._sure)
        if self.alone:
            return cheap_tokens[:, :branching], cheap[:, :branching]
        costly_tokens, costly = self._costly.propose(tree, level, count)
        costly, cheap = self._share * costly, (1 - self._share) * cheap
        same = costly_tokens[:, :, None] == cheap_tokens[:, None, :]
        # A token that both propose has its whole probability among the costly drafter's tokens.
        costly = costly + (cheap[:, None, :] * same).sum(dim=2)
        cheap = cheap.masked_fill(same.any(dim=1), 0.0)
        best = torch.cat([costly, cheap], dim=1).topk(branching, dim=1)
        return torch.cat([costly_tokens, cheap_tokens], dim=1).gather(1, best.indices), best.values

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """Let both drafters end the round; see `Drafter.commit`."""
        self._costly.commit(tree, path, states)
        self._cheap.commit(tree, path, states)
