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
