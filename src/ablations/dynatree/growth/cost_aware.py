"""Trees that take nodes while their expected gain exceeds their cost."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.growth.fixed import SMALLEST_POSITIVE, add_children
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.costs import Costs

# Path probabilities are rounded to multiples of 1 / CELLS: a look-up is faster than an interpolation.
CELLS = 4096


class CostModel:
    """Calibrated costs and acceptance; costs are in tokens, and a second is worth `rate` tokens.

    Attributes:
        costs: The calibrated costs.
        verify_seconds: ``[max_nodes + 1]``, seconds of a target forward over 1, 2, ... rows.
        verify: ``[max_nodes + 1]`` float64, the same in tokens, on the device.
        least_row_cost: Least mean cost of an additional row (`cheapest_slope`), in tokens.
        level: Cost of drafting a deep level, in tokens.
        row: Cost of drafting a row of it, in tokens.
        payable: Stated path probability below which no node can pay.

    Args:
        costs: Calibrated costs.
        max_nodes: Most nodes of a tree below its root.
        device: Device of the trees.
    """

    def __init__(self, costs: Costs, max_nodes: int, device: torch.device) -> None:
        self.costs = costs
        target, deep = costs.target, costs.level(2, alone=False)
        self.verify_seconds = target.verify_seconds(np.arange(1, max_nodes + 2), target.typical_prefix)
        verify = self.verify_seconds * costs.rate
        self.verify = torch.tensor(verify, device=device)
        self.least_row_cost = float(cheapest_slope(verify))
        self.level = deep.base * costs.rate
        self.row = deep.unit * costs.rate
        grid = np.linspace(0.0, 1.0, CELLS + 1)
        curve = np.interp(grid, costs.stated, costs.accepted)
        self._acceptance = torch.tensor(curve, device=device)
        # The curve never falls, so one stated probability separates the nodes that can pay from the others.
        self.payable = (float(np.searchsorted(curve, self.least_row_cost, side="right")) - 0.5) / CELLS

    def acceptance(self, paths: Tensor) -> Tensor:
        """Probability that the target accepts nodes of stated path probabilities `paths`, in their shape."""
        return self._acceptance[(paths * CELLS).round().long()]


def cheapest_slope(costs: NDArray) -> float:
    """Least mean cost of an additional row, over all numbers of rows added to the first; at least 0."""
    slopes = (costs[1:] - costs[0]) / np.arange(1, len(costs))
    return max(0.0, float(slopes.min())) if len(slopes) else 0.0


class CostAwareGrowth:
    """Takes the nodes of highest path probability while their gain exceeds their cost.

    Let a_1 >= a_2 >= ... be the calibrated acceptance of the drafted nodes, and c(r) the cost of verifying r
    rows in tokens (seconds times the rate at which decoding emits tokens). The number n of nodes maximises
    a_1 + ... + a_n - c(n + 1). The rate is the price of time, because a round that takes a second longer
    delays that many tokens. The rate is the one that this rule reaches on validation prompts, where the ratio
    of expected tokens to expected time is then maximal (Dinkelbach, 1967). Sequoia (arXiv 2402.12374) chooses
    one tree size for all rounds by the same ratio; OPT-Tree (arXiv 2406.17276) chooses a given number of
    nodes by path probability.

    A level is drafted only if it can pay: from nodes whose acceptance exceeds the least cost of a row, and
    while the children's expected gain exceeds the cost of drafting the level.

    Args:
        model: Costs and acceptance.
        max_depth: Most levels.
        branching: Most children per node.
        tau: Least path probability of a child; None has no limit.
    """

    def __init__(self, model: CostModel, max_depth: int, branching: int, tau: float | None) -> None:
        self.max_depth = max_depth
        self._model = model
        self._branching = branching
        self._threshold = max(tau or SMALLEST_POSITIVE, model.payable)
        # The root is always verified; its gain of 1 changes no comparison.
        self._gains = torch.ones_like(model.verify)

    def start(self) -> None:
        """Nothing to do: no state is kept across rounds."""

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> Tensor | None:
        """Draft levels while they can pay, then choose the rows to verify; see `Growth.grow`."""
        model, level = self._model, slice(0, 1)
        for depth in range(min(levels, self.max_depth)):
            if not tree.room or (depth and not self._pays(level)):
                break
            tokens, probabilities = drafter.propose(tree, level, self._branching)
            paths = probabilities * tree.probabilities[level, None]
            level = add_children(tree, level, tokens, paths, paths >= self._threshold)
            if level.start == level.stop:
                break
            self._gains[level] = model.acceptance(tree.probabilities[level])
        return self._best(tree)

    def learn(self, depth: int, accepted: int) -> None:
        """Nothing to do: no state is kept across rounds."""

    def _pays(self, level: slice) -> bool:
        """Whether drafting the children of `level` is expected to gain more than it costs."""
        model = self._model
        excess = self._gains[level] * model.costs.child - model.least_row_cost
        return float(excess.clamp_(min=0.0).sum()) > model.level + model.row * (level.stop - level.start)

    def _best(self, tree: TokenTree) -> Tensor | None:
        """Rows to verify, those of the best sum of gains less cost; None for all rows.

        A path probability never exceeds its parent's and the sort is stable, so a row sorts after its parent.
        """
        order = tree.probabilities.sort(descending=True, stable=True).indices
        gain = self._gains[order].cumsum(0)
        count = int((gain - self._model.verify[: tree.size]).argmax()) + 1
        return None if count == tree.size else order[:count].sort().values
