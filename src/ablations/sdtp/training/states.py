"""States of the unpruned model, on which trainings begin."""

import torch
from torch import Tensor

from ablations.lm.layered import LayeredLM
from ablations.sdtp.scores.table import SaliencyTable


class UnprunedStates:
    """States of a table's windows, each computed once and held on the CPU; several trainings may share them.

    Args:
        lm: Model.
        table: Windows.
        layers: Ascending pruning layers.
    """

    def __init__(self, lm: LayeredLM, table: SaliencyTable, layers: tuple[int, ...]) -> None:
        self._lm = lm
        self._table = table
        self._layers = layers
        self._windows: dict[int, Tensor] = {}
        self._prompts: dict[int, Tensor] = {}

    def window(self, window: int) -> Tensor:
        """``[tokens, hidden]`` of a window without padding, at the input of the first pruning layer."""
        if window not in self._windows:
            tokens = self._table.prompt_tokens + int(self._table.continuations[window])
            ids = self._table.ids[window, :tokens].to(self._lm.device)
            with torch.no_grad():
                hidden = self._run(self._lm.embed(ids[None]), 0, self._layers[0])
            self._windows[window] = hidden[0].cpu()
        return self._windows[window]

    def prompt(self, window: int) -> Tensor:
        """``[stages, prompt, hidden]`` of a window's prompt, at the input of each pruning layer."""
        if window not in self._prompts:
            hidden = self.window(window)[None, : self._table.prompt_tokens].to(self._lm.device)
            states = [hidden]
            with torch.no_grad():
                for start, end in zip(self._layers, self._layers[1:], strict=False):
                    states.append(self._run(states[-1], start, end))
            self._prompts[window] = torch.cat(states).cpu()
        return self._prompts[window]

    def _run(self, hidden: Tensor, start: int, end: int) -> Tensor:
        """Layers from `start` up to `end`."""
        rotary = self._lm.rotary(hidden, torch.arange(hidden.shape[1], device=hidden.device)[None])
        for layer in range(start, end):
            hidden = self._lm.layer(layer, hidden, rotary)
        return hidden
