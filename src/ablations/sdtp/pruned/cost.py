"""Deterministic costs of a prefill, from the rows that enter each layer."""

from collections.abc import Iterable, Sequence

from torch import nn

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import PackedLinear
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores.pruner import Pruner


def prefill_flops(lm: LayeredLM, rows: Sequence[int]) -> int:
    """Floating-point operations of one prefill, a multiply-add counted as two.

    Counted are linear layers, the two products of causal attention (only pairs that the mask allows, whether
    or not a kernel skips the others), and the head on one row. Normalisation, rotary embedding, softmax and
    activations are not counted; their cost is linear in rows x hidden. Scores are counted beside it.

    Args:
        lm: Model; its linear layers may be packed.
        rows: Rows that each layer runs on: the living tokens, or all tokens if dropped ones stay visible.
    """
    head = 2 * _weights([lm.lm_head])
    layers = sum(_layer(lm, layer, number) for layer, number in zip(lm.layers, rows, strict=True))
    return head + layers


def scorer_flops(pruner: Pruner, scored: Iterable[int]) -> int:
    """Floating-point operations of learned scorers: their linear layers.

    Args:
        pruner: The scorers, all of one size; their linear layers may be packed.
        scored: Rows that each stage scores; the stages need not be the pruner's.
    """
    return 2 * _weights(pruner.scorers[0].modules()) * sum(scored)


def attention_flops(lm: LayeredLM, scored: Iterable[int], window: int) -> int:
    """Floating-point operations of scores by the attention of the last rows (`WindowAttention`).

    Counted are keys of all rows, queries of the window, and the products that the mask allows.

    Args:
        lm: Model.
        scored: Rows that each stage scores.
        window: Last rows whose attention is taken.
    """
    hidden, width = lm.config.hidden_size, lm.config.num_attention_heads * lm.head_dim
    key_width, total = lm.kv_heads * lm.head_dim, 0
    for rows in scored:
        queries = min(window, rows)
        pairs = queries * rows - queries * (queries - 1) // 2
        total += hidden * (key_width * rows + width * queries) + width * pairs
    return 2 * total


def saliency_flops(lm: LayeredLM, tokens: int, first_layer: int, loss_tokens: int) -> int:
    """Floating-point operations of a prompt's gradient saliency: a forward and a backward.

    The forward is dense, with the head on the rows that predict the loss tokens. The backward goes from the
    head to the input of the first pruning layer, with respect to activations only (weights are frozen). In it
    a linear layer costs one product, as in the forward, and attention costs four (for queries, keys, values
    and probabilities) instead of two. What a fused kernel recomputes is not counted.

    Args:
        lm: Model.
        tokens: Tokens of the prompt.
        first_layer: First pruning layer.
        loss_tokens: Tokens whose NLL the gradient is of.
    """
    head = 2 * _weights([lm.lm_head]) * loss_tokens
    forward = sum(_layer(lm, layer, tokens) for layer in lm.layers)
    backward = sum(_layer(lm, layer, tokens, attention=4) for layer in lm.layers[first_layer:])
    return 2 * head + forward + backward


def planned_rows(pruning: Pruning, tokens: int, num_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows that will enter each layer, and rows that each stage will score, by top-k in a cascade."""
    counts = pruning.counts(tokens)
    living_from = dict(zip(pruning.layers, counts, strict=True))
    rows, living = [], tokens
    for layer in range(num_layers):
        living = living_from.get(layer, living)
        rows.append(living)
    return tuple(rows), (tokens, *counts[:-1]) if counts else ()


def kv_bytes(cache: StaticCache, rows: Sequence[int]) -> int:
    """Bytes of the keys and values of `rows` rows per layer, in a cache laid out like `cache`."""
    row = cache.keys[0][0, :, 0]
    return 2 * row.numel() * row.element_size() * sum(rows)


def _layer(lm: LayeredLM, layer: nn.Module, rows: int, attention: int = 2) -> int:
    width = lm.config.num_attention_heads * lm.head_dim
    return 2 * _weights(layer.modules()) * rows + 2 * attention * width * (rows * (rows + 1) // 2)


def _weights(modules: Iterable[nn.Module]) -> int:
    """Multiply-adds per row of all linear layers."""
    return sum(
        module.in_features * module.out_features
        for module in modules
        if isinstance(module, nn.Linear | PackedLinear)
    )
