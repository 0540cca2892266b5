"""Greedy decoding after a prefill."""

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.finite import greedy_ids
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.continuation import continue_layers
from ablations.sdtp.pruned.prefill import Prefilled


@torch.inference_mode()
def greedy_decode(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, tokens: int) -> Tensor:
    """Decode a given number of tokens; the end of a sequence is a token like any other.

    The chosen ids stay on the device, so that on CUDA the host never waits for one.

    Args:
        lm: Model.
        prefilled: What the prefill of the prompt left.
        cache: Its cache, with room for the new tokens but the last; it grows.
        tokens: How many, at least one.

    Returns:
        ``[tokens]`` int64, on the model's device; `NOT_FINITE` where logits were NaN or infinite.
    """
    token = greedy_ids(prefilled.logits)[None, None]
    found = [token]
    for _ in range(tokens - 1):
        hidden = continue_layers(
            lm,
            # What stands for a token that is none has no embedding.
            lm.embed(token.clamp(min=0)),
            range(lm.num_layers),
            prefilled.position_offsets,
            cache,
            prefilled.weights,
        )
        token = greedy_ids(lm.head(hidden))
        found.append(token)
    return torch.cat(found, dim=1)[0]
