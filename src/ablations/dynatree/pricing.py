"""What replayed rounds would cost, by calibrated costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch
from ablations.study.contracts.dynatree import Costs
from ablations.study.errors import UserError


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


def verify_seconds(costs: Costs, rows: Sequence[int] | NDArray) -> NDArray:
    """Seconds of target forwards over so many rows each, interpolated between calibrated numbers of rows.

    Raises:
        UserError: more rows than were calibrated; what those cost is not known.
    """
    most = max(rows, default=1)
    if most > costs.rows[-1]:
        raise UserError(
            f"dynatree.calibration.max_nodes: trees of {most - 1} nodes, but costs are calibrated for"
            f" {costs.rows[-1] - 1}; raise it, or lower the trees' max_nodes"
        )
    return np.interp(rows, costs.rows, costs.verify)


def price(costs: Costs, sizes: Sequence[int], levels: Sequence[tuple[int, float]]) -> float:
    """Seconds of target forwards over `sizes` rows each and of drafting `levels` (their rows count alone).

    Costs of bookkeeping are left out.

    Raises:
        UserError: more rows than were calibrated.
    """
    rows = sum(count for count, _ in levels)
    drafting = costs.draft_level * len(levels) + costs.draft_row * rows
    return float(verify_seconds(costs, sizes).sum()) + drafting
