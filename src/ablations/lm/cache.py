"""A static KV cache in which every layer has its own length."""

import torch
from torch import Tensor


class StaticCache:
    """Preallocated keys and values; rows are appended, compacted by index and truncated in place.

    Layers of `transformers` call `update`. The two methods call the rest: after SDTP's pruned prefill the
    layers have different lengths, and DynaTree keeps the accepted rows of a token tree. Batch size is 1.

    Attributes:
        lengths: Rows in use, one number per layer.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.capacity = capacity
        # All layers lie in one tensor, so that one indexing operation compacts them all.
        self._rows = torch.zeros(2, layers, 1, kv_heads, capacity, head_dim, dtype=dtype, device=device)
        self.keys, self.values = (list(half) for half in self._rows)
        self.lengths = [0] * layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object) -> tuple[Tensor, Tensor]:
        """Append rows to one layer and return all its rows (the interface of `transformers` layers).

        Args:
            keys: ``[1, kv_heads, rows, head_dim]``, rotated.
            values: ``[1, kv_heads, rows, head_dim]``.
            layer_idx: Layer, counted from 0.

        Returns:
            Views of the layer's keys and values, ``[1, kv_heads, length, head_dim]``.

        Raises:
            ValueError: the rows exceed the capacity.
        """
        start = self.lengths[layer_idx]
        end = start + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"KV cache of {self.capacity} rows cannot hold {end}")
        self.keys[layer_idx][:, :, start:end] = keys
        self.values[layer_idx][:, :, start:end] = values
        self.lengths[layer_idx] = end
        return self.keys[layer_idx][:, :, :end], self.values[layer_idx][:, :, :end]

    def keep(self, start: int, indices: Tensor) -> None:
        """Drop the rows from `start` on, except `start + indices` (ascending), in every layer.

        Args:
            start: First row that may be dropped.
            indices: ``[kept]``, int64, offsets from `start`, on any device.
        """
        end = start + indices.shape[0]
        rows = (start + indices).to(self._rows.device)
        self._rows[..., start:end, :] = self._rows.index_select(-2, rows)
        self.lengths = [end] * len(self.lengths)

    def truncate(self, length: int) -> None:
        """Drop the rows from `length` on, in every layer that has them."""
        self.lengths = [min(length, previous) for previous in self.lengths]

    def bytes_in_use(self) -> int:
        """Bytes of the rows in use, keys and values of all layers."""
        return sum(
            2 * length * keys.shape[1] * keys.shape[3] * keys.element_size()
            for length, keys in zip(self.lengths, self.keys, strict=True)
        )
