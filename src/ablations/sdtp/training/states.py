"""States of the unpruned model at the input of each pruning layer."""

import torch
from torch import Tensor

from ablations.lm.layered import LayeredLM


@torch.no_grad()
def unpruned_states(lm: LayeredLM, ids: Tensor, layers: tuple[int, ...]) -> Tensor:
    """Run the layers up to the last stage's, and collect the states at each stage's input.

    Args:
        lm: Model.
        ids: ``[batch, tokens]`` int64, on the model's device.
        layers: Ascending pruning layers.

    Returns:
        ``[stages, batch, tokens, hidden]``.
    """
    hidden = lm.embed(ids)
    rotary = lm.rotary(hidden, torch.arange(ids.shape[1], device=ids.device)[None])
    states = [hidden] * layers.count(0)
    for layer in range(layers[-1]):
        hidden = lm.layer(layer, hidden, rotary)
        if layer + 1 in layers:
            states.append(hidden)
    return torch.stack(states)


class UnprunedStates:
    """States of a table's prompts, each computed once and held on the CPU; several trainings may share them.

    Args:
        lm: Model.
        ids: ``[windows, prompt]`` int64.
        layers: Ascending pruning layers.
    """

    def __init__(self, lm: LayeredLM, ids: Tensor, layers: tuple[int, ...]) -> None:
        self._lm = lm
        self._ids = ids
        self._layers = layers
        self._states: dict[int, Tensor] = {}

    def of(self, window: int) -> Tensor:
        """``[stages, prompt, hidden]`` of one window, on the CPU."""
        if window not in self._states:
            ids = self._ids[window].to(self._lm.device)
            self._states[window] = unpruned_states(self._lm, ids[None], self._layers)[:, 0].cpu()
        return self._states[window]

    def clear(self) -> None:
        """Drop what is held."""
        self._states.clear()

    def __len__(self) -> int:
        """Windows whose states are held."""
        return len(self._states)
