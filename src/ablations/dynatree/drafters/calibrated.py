"""A drafter whose probabilities are those that turned out on validation text."""

import numpy as np
import torch
from torch import Tensor

from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.calibrate_drafter import Acceptance

CELLS = 4096
"""Probabilities are rounded to multiples of 1 / CELLS: a look-up is faster than an interpolation."""

OWN_WEIGHT = 0.01
"""Weight of the stated probability, so that proposals with different ones never become equal."""


class CalibratedDrafter:
    """Proposes what another drafter proposes, each token with the share of such tokens that was accepted.

    The shares never fall with the stated probability, so the order of proposals stays; a probability of 0
    stays 0.

    Args:
        inner: The drafter.
        acceptance: What turned out.
        device: Device of the proposals.
    """

    def __init__(self, inner: Drafter, acceptance: Acceptance, device: torch.device) -> None:
        self._inner = inner
        cells = np.linspace(0.0, 1.0, CELLS + 1)
        shares = np.interp(cells, acceptance.stated, acceptance.accepted)
        self._shares = torch.tensor((1 - OWN_WEIGHT) * shares, device=device)

    @property
    def forwards(self) -> int:
        """Levels proposed since `prefill`."""
        return self._inner.forwards

    @property
    def alone(self) -> bool:
        """Whether the cheap one of two drafters drafts this round alone."""
        return self._inner.alone

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt; see `Drafter.prefill`."""
        self._inner.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """The drafter's proposals with calibrated probabilities; see `Drafter.propose`."""
        tokens, stated = self._inner.propose(tree, level, branching)
        # NaN has no cell; it stays what it is, and is reported where decoding ends.
        cells = (stated.nan_to_num() * CELLS).round().long().clamp_(0, CELLS)
        return tokens, self._shares[cells] + OWN_WEIGHT * stated

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """End a round; see `Drafter.commit`."""
        self._inner.commit(tree, path, states)
