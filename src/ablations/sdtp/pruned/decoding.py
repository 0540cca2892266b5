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
    """Decode a given number of tokens; an end of sequence does not stop decoding.

    The ids stay on the device, so that on CUDA the host never waits.

    Args:
        lm: Model.
        prefilled: Result of the prompt's prefill.
        cache: Cache of that prefill, with room for all new tokens except the last; it grows.
        tokens: Number of tokens, at least one.

    Returns:
        ``[tokens]`` int64, on the model's device; `NOT_FINITE` where logits were NaN or infinite.
    """
    token = greedy_ids(prefilled.logits)[None, None]
    decoded = [token]
    for _ in range(tokens - 1):
        hidden = continue_layers(
            lm,
            # `NOT_FINITE` is negative and has no embedding.
            lm.embed(token.clamp(min=0)),
            range(lm.num_layers),
            prefilled.position_offsets,
            cache,
            prefilled.weights,
        )
        token = greedy_ids(lm.head(hidden))
        decoded.append(token)
    return torch.cat(decoded, dim=1)[0]
