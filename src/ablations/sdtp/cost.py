"""Deterministic costs of a prefill, from the rows that enter each layer."""

from collections.abc import Sequence

from torch import nn

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM


def prefill_flops(lm: LayeredLM, living: Sequence[int], scored: Sequence[int] = (), width: int = 0) -> int:
    """Floating-point operations of one prefill, a multiply-add counted as two.

    Counted are linear layers, the two products of causal attention (only the pairs a row may see), the
    scorers, and the head on one row. Normalisation, rotary embedding, softmax and activations, all
    linear in rows x hidden, are left out.

    Args:
        lm: Model.
        living: Rows that enter each layer.
        scored: Rows that each stage scores with a learned pruner; none for other importances.
        width: Hidden width of the scorers.
    """
    config = lm.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = config.num_attention_heads * head_dim
    total = 2 * lm.lm_head.weight.numel()
    for layer, rows in zip(lm.layers, living, strict=True):
        linear = sum(module.weight.numel() for module in layer.modules() if isinstance(module, nn.Linear))
        total += 2 * linear * rows + 2 * 2 * attention * rows * (rows + 1) // 2
    return total + sum(2 * rows * width * (config.hidden_size + 2) for rows in scored)


def kv_bytes(cache: StaticCache, living: Sequence[int]) -> int:
    """Bytes of the keys and values of `living` rows per layer, in a cache laid out like `cache`."""
    row = cache.keys[0][0, :, 0]
    return 2 * row.numel() * row.element_size() * sum(living)
