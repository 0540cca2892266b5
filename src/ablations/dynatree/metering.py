"""What drafting costs while it happens: levels, ends of rounds and prompts, each by what it reads."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch
from ablations.specs.dynatree.costs import LevelKind, Line, level_kind

Timed = tuple[int, float]
"""A number of rows or tokens, and seconds."""


@dataclass
class MeteredDrafter:
    """A drafter whose calls are timed, each by its kind.

    Attributes:
        inner: The drafter.
        target: The target; its device is synchronised around each call.
        prompts: Tokens and seconds of each prompt read.
        levels: Rows (of a root: tokens of text that are new to the drafter) and seconds of each level drafted
            from.
        commits: Accepted tokens and seconds of each end of a round.
    """

    inner: Drafter
    target: LayeredLM
    prompts: list[Timed] = field(default_factory=list)
    levels: defaultdict[LevelKind, list[Timed]] = field(default_factory=lambda: defaultdict(list))
    commits: list[Timed] = field(default_factory=list)
    _unread: int = 1

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self.inner.forwards

    @property
    def alone(self) -> bool:
        """Whether the cheap one of two drafters drafts this round alone."""
        return self.inner.alone

    @property
    def device(self) -> torch.device:
        """Device of the target."""
        return self.target.device

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt, metered."""
        _, seconds = stopwatch(self.device, lambda: self.inner.prefill(prompt, states))
        self.prompts.append((len(prompt), seconds))
        self._unread = 1

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The drafter's proposals, metered."""
        proposed, seconds = stopwatch(self.device, lambda: self.inner.propose(tree, level, branching))
        rows = level.stop - level.start if level.start else self._unread
        self.levels[level_kind(int(tree.depths[level.start]), self.alone)].append((rows, seconds))
        return proposed

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round, metered."""
        _, seconds = stopwatch(self.device, lambda: self.inner.commit(tree, path, states))
        self.commits.append((len(path) - 1, seconds))
        self._unread = len(path) + (self._unread if self.alone else 0)


def line(timed: Sequence[Timed]) -> Line:
    """A straight line through metered calls, by non-negative least squares.

    Calls that read more vary more: their weight is the inverse of what they read, so that the line gives
    about the seconds of all of them together.
    """
    if not timed:
        return Line(base=0.0, unit=0.0)
    numbers, seconds = np.array(timed, dtype=float).T
    weight = 1 / np.sqrt(numbers + 1)
    (base, unit), _ = nnls(np.stack([weight, weight * numbers], axis=1), weight * seconds)
    return Line(base=float(base), unit=float(unit))


def bookkeeping_line(rounds: Sequence[tuple[int, int, float]]) -> Line:
    """Seconds of a round outside drafter and target, by drafted nodes.

    Args:
        rounds: Rounds, drafted nodes, and seconds outside drafter and target of each generation.
    """
    counts, nodes, seconds = np.array(rounds, dtype=float).T
    (base, unit), _ = nnls(np.stack([counts, nodes], axis=1), seconds)
    return Line(base=float(base), unit=float(unit))
