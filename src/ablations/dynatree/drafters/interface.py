"""The interface of all drafters: next-token distributions for one level of a token tree."""

import math
from typing import Protocol

import torch
from torch import Tensor

from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.tree import TokenTree
from ablations.lm.finite import require_finite


class Drafter(Protocol):
    """Proposes next tokens of the target; keeps its state across rounds."""

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`; a neural drafter runs one forward for each."""
        ...

    @property
    def alone(self) -> bool:
        """Whether the cheap one of two drafters drafts this round alone; False of a drafter that is one."""
        ...

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Reset the drafter and read a prompt, without the token that the target emits after it.

        Args:
            prompt: Token ids.
            states: ``[prompt, hidden]``, the target's last-layer states of the prompt, before its final norm.
        """
        ...

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable next tokens after each node of the newest level of `tree`.

        Args:
            tree: The tree so far; at the first call of a round it has only the root.
            level: The n rows of the newest level.
            branching: Children per node, B.

        Returns:
            Distinct tokens ``[n, B]`` int64 and their probabilities ``[n, B]`` float64, the most
            probable first, on the tree's device. A node with fewer than B proposals is filled up with
            arbitrary tokens of probability 0.
        """
        ...

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round; only the nodes of `path` become text.

        Args:
            tree: The tree that was verified.
            path: ``[accepted + 1]`` int64, ascending rows from the root to the last accepted node.
            states: ``[accepted + 1, hidden]``, the target's last-layer states of `path`, before the final
                norm.
        """
        ...


class TimedDrafter:
    """A drafter whose work after the prefill is timed as phase ``draft`` of a clock."""

    def __init__(self, drafter: Drafter, clock: PhaseClock) -> None:
        self._drafter = drafter
        self._clock = clock
        # Kept on the device and read after timing; once a NaN was added, the sum stays NaN.
        self._probability_sum: Tensor | float = 0.0

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self._drafter.forwards

    @property
    def alone(self) -> bool:
        """Whether the cheap one of two drafters drafts this round alone."""
        return self._drafter.alone

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt; not timed by the clock."""
        self._drafter.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The drafter's proposals; see `Drafter.propose`."""
        proposed = self._clock.time("draft", lambda: self._drafter.propose(tree, level, branching))
        self._probability_sum = self._probability_sum + proposed[1].sum()
        return proposed

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round; see `Drafter.commit`."""
        self._clock.time("draft", lambda: self._drafter.commit(tree, path, states))

    def require_finite(self, dtype: torch.dtype) -> None:
        """Check all probabilities proposed so far; waits for the device.

        A proposal whose probability is NaN is never drafted, so nothing else would show it.

        Args:
            dtype: Data type that the drafter computes in, for the message.

        Raises:
            UserError: a probability was NaN or infinite.
        """
        require_finite(math.isfinite(self._probability_sum), "the draft's probabilities", dtype)
