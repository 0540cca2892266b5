"""What replayed rounds would cost, by calibrated costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch
from ablations.study.contracts.dynatree import Costs


@dataclass
class MeteredDrafter:
    """A drafter beside a target, with the rows and seconds of every level it was asked for."""

    inner: Drafter
    target: LayeredLM
    levels: list[tuple[int, float]] = field(default_factory=list)

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self.inner.forwards

    @property
    def device(self) -> torch.device:
        """Device of the target."""
        return self.target.device

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt; not metered."""
        self.inner.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The drafter's proposals, metered.

        Raises:
            UserError: a probability is NaN or infinite.
        """
        proposed, seconds = stopwatch(self.device, lambda: self.inner.propose(tree, level, branching))
        finite = bool(proposed[1].isfinite().all())
        require_finite(finite, "the draft's probabilities", self.target.dtype)
        self.levels.append((level.stop - level.start, seconds))
        return proposed

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round; not metered."""
        self.inner.commit(tree, path, states)


def price(costs: Costs, sizes: Sequence[int], levels: Sequence[tuple[int, float]]) -> float:
    """Seconds of target forwards over `sizes` rows each and of drafting `levels` (their rows count alone).

    Costs between calibrated numbers of rows are interpolated; those of bookkeeping are left out.
    """
    rows = sum(count for count, _ in levels)
    drafting = costs.draft_level * len(levels) + costs.draft_row * rows
    return float(np.interp(sizes, costs.rows, costs.verify).sum()) + drafting
