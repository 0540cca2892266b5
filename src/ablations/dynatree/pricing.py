"""Calibrated costs, and times of replayed rounds computed from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.record import read_contract
from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch
from ablations.specs.dynatree.costs import Costs

COSTS_FILE = "costs.json"


def read_costs(manifest: Path) -> Costs:
    """Read what `ablations.dynatree.calibrate_costs` made.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    return read_contract(folder / COSTS_FILE, Costs)


@dataclass
class MeteredDrafter:
    """A drafter that records the rows and seconds of every level it proposes.

    Attributes:
        inner: The drafter.
        target: The target; its device is synchronised around each proposal.
        levels: Rows and seconds of each level so far.
    """

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
    """Seconds of target forwards over given numbers of rows, interpolated between calibrated ones.

    Raises:
        UserError: a forward has more rows than the largest calibrated one.
    """
    largest = max(rows, default=1)
    if largest > costs.rows[-1]:
        raise UserError(
            f"dynatree.calibration.max_nodes: trees of {largest - 1} nodes, but costs are calibrated for"
            f" {costs.rows[-1] - 1}; raise it, or lower the trees' max_nodes"
        )
    return np.interp(rows, costs.rows, costs.verify)


def price(costs: Costs, sizes: Sequence[int], levels: Sequence[tuple[int, float]]) -> float:
    """Seconds of target forwards over `sizes` rows and of drafting `levels`, without bookkeeping.

    Of a level only its rows count, not its measured seconds.

    Raises:
        UserError: a forward has more rows than the largest calibrated one.
    """
    rows = sum(count for count, _ in levels)
    drafting = costs.draft_level * len(levels) + costs.draft_row * rows
    return float(verify_seconds(costs, sizes).sum()) + drafting
