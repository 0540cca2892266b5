"""Quality: the text that follows a pruned prompt, read by one teacher-forced forward."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.prefill import Prefilled


@torch.inference_mode()
def continuation_states(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, ids: Tensor) -> Tensor:
    """States that predict each token of a continuation, given the pruned prompt and the tokens before it.

    The prefill's state predicts the first token; the others come from one forward, in which every layer
    has its own number of cached rows and so its own mask.

    Args:
        lm: Model.
        prefilled: What the prefill of the prompt left.
        cache: Its cache, with room for the continuation; it grows.
        ids: ``[tokens]`` int64 continuation, on the model's device.

    Returns:
        ``[tokens, hidden]``, after the last layer and before the final norm: ``lm.head(states[None])[0]``
        are the logits.
    """
    rows = ids.shape[0] - 1
    first = prefilled.state[None]
    if not rows:
        return first
    hidden = lm.embed(ids[None, :-1])
    positions = torch.arange(rows, device=ids.device) + prefilled.next_position
    rotary = lm.rotary(hidden, positions[None])
    masks = {length: _mask(length, rows, ids.device) for length in set(cache.lengths)}
    for layer in range(lm.num_layers):
        hidden = lm.layer(layer, hidden, rotary, masks[cache.lengths[layer]], cache)
    return torch.cat([first, hidden[0]])


@torch.inference_mode()
def continuation_nll(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, ids: Tensor) -> Tensor:
    """Mean NLL of the continuation: scalar float32, nats per token (arguments as `continuation_states`)."""
    states = continuation_states(lm, prefilled, cache, ids)
    return F.cross_entropy(lm.head(states[None])[0].float(), ids)


def _mask(cached: int, rows: int, device: torch.device) -> Tensor:
    """``[1, 1, rows, cached + rows]`` bool: new rows see all cached ones and themselves causally."""
    return torch.ones(rows, cached + rows, dtype=torch.bool, device=device).tril(diagonal=cached)[None, None]
