"""Trees whose breadth and depth follow the draft's confidence and the acceptance of earlier rounds."""

import torch

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.growth.fixed import SMALLEST_POSITIVE, add_children
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.arm import DynamicTree, History


class DynamicGrowth:
    """The adaptive tree of DynaTree: breadth by confidence, depth by path probability, history.

    The draft's greatest probability after a node sets the node's number of children. A node with a path
    probability below `rho_stop` gets no children; from the base depth on, nodes need `rho_deep`. With
    history, base depth and `rho_stop` follow the acceptance of the prompt's rounds so far.

    Args:
        settings: Thresholds and history.
        base_depth: Levels for which `rho_stop` is enough.
        tau: Least path probability of a child; None has no limit.
        device: Device of the trees.
    """

    def __init__(
        self, settings: DynamicTree, base_depth: int, tau: float | None, device: torch.device
    ) -> None:
        self.max_depth = settings.max_depth
        self._settings = settings
        self._base_depth = base_depth
        self._tau = tau or SMALLEST_POSITIVE
        # Ascending, as bucketize needs: bucket 0 has the least confidence, and so the last breadth.
        self._confidences = torch.tensor(settings.confidences[::-1], dtype=torch.float64, device=device)
        self._breadths = torch.tensor(settings.breadths[::-1], device=device)
        self._max_breadth = max(settings.breadths)
        self._ranks = torch.arange(self._max_breadth, device=device)
        self.start()

    def start(self) -> None:
        """Begin a prompt with base depth and `rho_stop` as configured; see `Growth.start`."""
        history = self._settings.history
        self.depth, self.rho_stop = self._base_depth, self._settings.rho_stop
        self._mean = history.target if history else 0.0

    def grow(self, tree: TokenTree, drafter: Drafter, levels: int) -> None:
        """Add up to `levels` levels; see `Growth.grow`. All rows are verified."""
        level = slice(0, 1)
        for depth in range(min(levels, self.max_depth)):
            if not tree.room:
                return
            parents = tree.probabilities[level, None]
            growing = parents >= (self.rho_stop if depth < self.depth else self._settings.rho_deep)
            # The root's path probability is 1, so the root always grows.
            if depth and not growing.any():
                return
            tokens, probabilities = drafter.propose(tree, level, self._max_breadth)
            breadths = self._breadths[
                torch.bucketize(probabilities[:, :1].contiguous(), self._confidences, right=True)
            ]
            paths = probabilities * parents
            wanted = growing & (self._ranks < breadths) & (paths >= self._tau)
            level = add_children(tree, level, tokens, paths, wanted)
            if level.start == level.stop:
                return

    def learn(self, depth: int, accepted: int) -> None:
        """Move base depth and `rho_stop` by the running mean of acceptance; see `Growth.learn`."""
        history = self._settings.history
        if history is None or depth == 0:
            return
        self._mean += history.smoothing * (accepted / depth - self._mean)
        self.depth, self.rho_stop = self._controlled(history, self._mean - history.target)

    def _controlled(self, history: History, excess: float) -> tuple[int, float]:
        depth = round(self._base_depth + history.depth_gain * excess)
        least, greatest = history.threshold_range
        threshold = self._settings.rho_stop - history.threshold_gain * excess
        return min(max(depth, 1), self.max_depth), min(max(threshold, least), greatest)
