"""Decoder layers of the Llama family with few operators, for forwards of few rows.

A layer of `transformers` takes some sixty operators. On one row of a small model their dispatch takes as long
as the arithmetic, in every forward of every decoding arm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM, Rotary, frozen_linear
from ablations.lm.packing import PackedLinear, pack_linears, pack_module

FUSABLE_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2"})


def fastest(lm: LayeredLM) -> tuple[LayeredLM, str]:
    """The fastest form of a model for its architecture, device and data type.

    Linear layers are packed in place, also in the `transformers` model.

    Returns:
        The model to run, and the name of its form: the layout of the linear layers (``onednn`` or ``stock``),
        after ``fused`` where the layers are those of this module.
    """
    if not _fusable(lm.config):
        return lm, pack_linears(lm)
    fused = FusedLM(lm.model)
    return fused, f"fused {fused.layout}"


class FusedLM(LayeredLM):
    """A `LayeredLM` of the Llama family whose layers are `FusedLayer`; same function, same interface.

    The underlying `transformers` model stays usable. It shares all weights with this one, except those of the
    query, key and value projections.

    Attributes:
        layout: Layout of the linear layers, ``onednn`` or ``stock``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        merged = nn.ModuleList(merged_qkv(layer.self_attn) for layer in self.layers)
        self.layout = pack_linears(self)
        pack_module(merged)
        self.layers = nn.ModuleList(map(FusedLayer, self.layers, merged))

    def rotary(self, hidden: Tensor, positions: Tensor) -> Rotary:
        """Cosines and sines for ``[1, rows]`` int64 positions, as `FusedLayer` takes them."""
        return signed_rotary(*self.rotary_embedding(hidden, position_ids=positions))


class FusedLayer(nn.Module):
    """A decoder layer of the Llama family: merged projections, rotation in three operators, no repeated keys.

    Args:
        layer: The `transformers` layer; its linear layers are shared, except the query, key and value
            projections.
        qkv: Linear layer that computes queries, keys and values together.
    """

    def __init__(self, layer: Any, qkv: nn.Module) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._index = attention.layer_idx
        self._width = attention.head_dim
        self._kv_heads = attention.k_proj.out_features // self._width
        self._heads = attention.q_proj.out_features // self._width
        self._before_attention = layer.input_layernorm
        self._before_mlp = layer.post_attention_layernorm
        self._qkv = qkv
        self._out = product(attention.o_proj)
        self._gate, self._up, self._down = map(product, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: Rotary,
        past_key_values: StaticCache | None,
        **_: object,
    ) -> Tensor:
        """Run the layer, with the interface of a `transformers` layer.

        Args:
            hidden: ``[1, rows, hidden]``.
            attention_mask: ``[1, 1, rows, keys]``, as `LayeredLM.layer` takes it.
            position_embeddings: Cosines and signed sines, each ``[rows, 1, head_dim]``.
            past_key_values: Takes the rows' keys and values.

        Returns:
            ``[1, rows, hidden]``.
        """
        rows = hidden[0]
        rows = self._out.plus(
            self._attended(rows, position_embeddings, attention_mask, past_key_values), rows
        )
        normed = _normed(self._before_mlp, rows)
        return self._down.plus(self._up.times(normed, self._gate.swish(normed)), rows)[None]

    def _attended(
        self, hidden: Tensor, rotary: Rotary, mask: Tensor | None, cache: StaticCache | None
    ) -> Tensor:
        rows, rotated_heads = hidden.shape[0], self._heads + self._kv_heads
        cosines, sines = rotary
        heads = self._qkv(_normed(self._before_attention, hidden)).view(rows, -1, self._width)
        rotated = heads[:, :rotated_heads]
        rotated = torch.addcmul(rotated * cosines, rotated.roll(self._width // 2, dims=-1), sines)
        keys = rotated[None, :, self._heads :].transpose(1, 2)
        values = heads[None, :, rotated_heads:].transpose(1, 2)
        if cache is not None:
            keys, values = cache.update(keys, values, self._index)
        queries = rotated[:, : self._heads].view(rows, self._kv_heads, -1, self._width).permute(1, 2, 0, 3)
        if mask is None and rows > 1:
            attended = _causal(queries, keys, values)
        else:
            attended = _grouped(queries, keys, values, mask)
        return attended.permute(2, 0, 1, 3).reshape(rows, -1)


def signed_rotary(cosines: Tensor, sines: Tensor) -> Rotary:
    """Cosines and signed sines ``[rows, 1, head_dim]`` for `FusedLayer`, from ``[1, rows, head_dim]``."""
    # rotate_half(x) * sin equals roll(x) * sin with the first half of sin negated.
    first, second = sines.chunk(2, dim=-1)
    return cosines[0, :, None], torch.cat([-first, second], dim=-1)[0, :, None]


class StockProduct(nn.Module):
    """A linear layer with an elementwise operation after it, as two operators."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self._linear = linear

    def swish(self, rows: Tensor) -> Tensor:
        """SiLU of the layer's output."""
        return F.silu(self._linear(rows))

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """The layer's output times `other`."""
        return self._linear(rows) * other

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The layer's output plus `other`."""
        return self._linear(rows) + other


class PackedProduct(PackedLinear):
    """A packed linear layer with an elementwise operation after it, as one operator.

    Shares the weight of `packed`.
    """

    def __init__(self, packed: PackedLinear) -> None:
        nn.Module.__init__(self)
        self._packed, self.bias = packed._packed, packed.bias

    def swish(self, rows: Tensor) -> Tensor:
        """SiLU of the layer's output."""
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "swish", [], "")

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """The layer's output times `other`."""
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, self.bias, "mul")

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The layer's output plus `other`."""
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, self.bias, "add")


def _causal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of grouped queries ``[kv_heads, group, rows, head_dim]``, without copying keys."""
    # Each key head is a batch entry, and the queries of its group are the heads.
    shape = (*queries.shape[:2], keys.shape[2], keys.shape[3])
    keys, values = (tensor.transpose(0, 1).expand(shape) for tensor in (keys, values))
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


def _grouped(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a few grouped queries, shapes as in `_causal`; a group's rows are rows of one head."""
    # Takes a quarter less time than `_causal` for a few rows; the repeated mask is small.
    mask = mask if mask is None else mask.repeat(1, 1, queries.shape[1], 1)
    attended = F.scaled_dot_product_attention(queries.flatten(1, 2)[None], keys, values, attn_mask=mask)
    return attended[0].view(queries.shape)


def product(linear: nn.Module) -> StockProduct | PackedProduct:
    """The linear layer with the elementwise operations that can follow it."""
    return PackedProduct(linear) if isinstance(linear, PackedLinear) else StockProduct(linear)


def merged_qkv(attention: Any) -> nn.Linear:
    """One linear layer for queries, keys and values; the weights of the three become views of its weight."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biases = [projection.bias for projection in projections if projection.bias is not None]
    merged = frozen_linear(
        torch.cat([projection.weight for projection in projections]), torch.cat(biases) if biases else None
    )
    sizes = [projection.out_features for projection in projections]
    for projection, rows in zip(projections, merged.weight.split(sizes), strict=True):
        projection.weight = nn.Parameter(rows, requires_grad=False)
    return merged


def _fusable(config: Any) -> bool:
    """Whether `FusedLayer` computes the layers of this configuration."""
    return config.model_type in FUSABLE_ARCHITECTURES and config.hidden_act == "silu"


def _normed(norm: Any, rows: Tensor) -> Tensor:
    return F.rms_norm(rows, rows.shape[-1:], norm.weight, norm.variance_epsilon)
