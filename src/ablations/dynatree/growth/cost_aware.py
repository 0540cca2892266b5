"""Trees whose nodes are taken while what they promise exceeds what they cost."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.growth.fixed import ANY, add_children
from ablations.dynatree.pricing import verify_seconds
from ablations.dynatree.tree import TokenTree
from ablations.study.contracts.dynatree import Costs

# Path probabilities are told apart in steps of 1 / CELLS: a look-up costs less than an interpolation.
CELLS = 4096


class CostModel:
    """Costs and acceptance as calibrated, in tokens: a second is worth `rate` of them.

    Args:
        costs: What was measured.
        max_nodes: Most nodes of a tree below its root.
        device: Where the trees are.

    Raises:
        UserError: larger trees than were calibrated.
    """

    def __init__(self, costs: Costs, max_nodes: int, device: torch.device) -> None:
        self.costs = costs
        self.verify_seconds = verify_seconds(costs, np.arange(1, max_nodes + 2))
        verify = self.verify_seconds * costs.rate
        self.verify = torch.tensor(verify, device=device)
        self.least = float(cheapest_slope(verify))
        self.level = costs.draft_level * costs.rate
        self.row = costs.draft_row * costs.rate
        grid = np.linspace(0.0, 1.0, CELLS + 1)
        curve = np.interp(grid, costs.stated, costs.accepted)
        self._acceptance = torch.tensor(curve, device=device)
        # The curve never falls, so one stated probability parts the nodes that can pay from the others.
        self.payable = (float(np.searchsorted(curve, self.least, side="right")) - 0.5) / CELLS

    def acceptance(self, paths: Tensor) -> Tensor:
        """Probability that the target accepts nodes of stated path probability `paths` (same shape)."""
        return self._acceptance[(paths * CELLS).round().long()]


def cheapest_slope(costs: NDArray) -> float:
    """Least mean cost of one row more, over all ways to add rows to the first one."""
    return 0.0 if len(costs) == 1 else float(np.min((costs[1:] - costs[0]) / np.arange(1, len(costs))))


class CostAwareGrowth:
    """Takes the nodes of highest path probability while their gain exceeds their cost.

    With a_1 >= a_2 >= ... the calibrated acceptance of the drafted nodes and c(r) the cost of verifying
    r rows in tokens (seconds times the rate at which decoding makes tokens), the best n nodes are those
    that maximise a_1 + ... + a_n - c(n + 1). Time has the price of the rate because a round longer by a
    second keeps that many tokens from being made; the rate itself is what this rule yields on validation
    prompts (the ratio of expected tokens to expected time is maximal there: Dinkelbach, 1967). Sequoia
    (arXiv 2402.12374) picks one tree size for all rounds by the same ratio, OPT-Tree (arXiv 2406.17276)
    a given number of nodes by path probability.

    Drafting goes down a level only where that can pay: from nodes whose acceptance exceeds the least cost
    of a row, and while the children's expected excess exceeds the draft's cost of the level.

    Args:
        model: Costs and acceptance.
        max_depth: Most levels.
        branching: Most children per node.
        tau: Children of a smaller path probability are dropped; None drops none.
    """

    def __init__(self, model: CostModel, max_depth: int, branching: int, tau: float | None) -> None:
        self.max_depth = max_depth
        self._model = model
        self._branching = branching
        self._threshold = max(tau or ANY, model.payable)
        # The root is certain; it is verified whatever it brings.
        self._gains = torch.ones_like(model.verify)

    def start(self) -> None:
        """Nothing is kept from round to round."""

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> Tensor | None:
        """Draft while it can pay, then choose what to verify; see `Growth.grow`."""
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
        """Nothing is kept from round to round."""

    def _pays(self, level: slice) -> bool:
        model = self._model
        hope = self._gains[level] * model.costs.child - model.least
        return float(hope.clamp_(min=0.0).sum()) > model.level + model.row * (level.stop - level.start)

    def _best(self, tree: TokenTree) -> Tensor | None:
        """Rows whose gain exceeds their cost; a path probability never exceeds its parent's, and the sort
        is stable, so every row comes after its parent.
        """
        order = tree.probabilities.sort(descending=True, stable=True).indices
        gain = self._gains[order].cumsum(0)
        count = int((gain - self._model.verify[: tree.size]).argmax()) + 1
        return None if count == tree.size else order[:count].sort().values
