"""The one interface of all drafters: next-token distributions for one level of a token tree."""

import math
from typing import Protocol

import torch
from torch import Tensor

from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.tree import TokenTree
from ablations.lm.finite import require_finite


class Drafter(Protocol):
    """Guesses what the target will say; keeps its state across rounds."""

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`; a neural drafter runs one forward for each."""
        ...

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Forget everything and read a prompt (without the token that the target emits after it).

        Args:
            prompt: Token ids.
            states: ``[prompt, hidden]``, the target's last-layer states of them, before its final norm.
        """
        ...

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The most probable next tokens after each node of the newest level of `tree`.

        Args:
            tree: The tree so far; the first call of a round sees the root alone.
            level: Rows of the newest level, n of them.
            branching: Children per node, B.

        Returns:
            Distinct tokens ``[n, B]`` int64 and their probabilities ``[n, B]`` float64, the most
            probable first, on the tree's device. Where there is no B-th proposal its probability is 0,
            and its token means nothing.
        """
        ...

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round: only the nodes of `path` became text.

        Args:
            tree: The tree that was verified.
            path: ``[accepted + 1]`` int64, ascending rows from the root to the last accepted node.
            states: ``[accepted + 1, hidden]``, the target's last-layer states of them, before its final norm.
        """
        ...


class TimedDrafter:
    """A drafter whose work after the prefill counts to phase ``draft`` of a clock."""

    def __init__(self, drafter: Drafter, clock: PhaseClock) -> None:
        self._drafter = drafter
        self._clock = clock
        # On the device: a NaN that was added once stays, and is read when nothing is timed any more.
        self._stated: Tensor | float = 0.0

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self._drafter.forwards

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt; not timed here."""
        self._drafter.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The drafter's proposals; see `Drafter.propose`."""
        proposed = self._clock.time("draft", lambda: self._drafter.propose(tree, level, branching))
        self._stated = self._stated + proposed[1].sum()
        return proposed

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round; see `Drafter.commit`."""
        self._clock.time("draft", lambda: self._drafter.commit(tree, path, states))

    def require_finite(self, dtype: torch.dtype) -> None:
        """Check all probabilities that were proposed so far; waits for the device.

        Args:
            dtype: Data type that the drafter computes in, for the message.

        Raises:
            UserError: one was NaN or infinite; such a proposal is never drafted, and nobody would notice.
        """
        require_finite(math.isfinite(self._stated), "the draft's probabilities", dtype)
