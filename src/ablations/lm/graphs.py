"""Forwards of few rows on a static cache as CUDA graphs: one launch instead of hundreds."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.device import distinct_indices
from ablations.lm.layered import LayeredLM

WARMUPS = 2


class GraphedCache(StaticCache):
    """A static cache with the model's forwards of few rows captured on it.

    Every forward writes its rows by index and attends over the whole cache under a mask, so shapes and
    addresses never change. On CUDA each size is captured here, before anything is timed, and replayed; on
    other devices the same operators run one by one. Sizes are the powers of two below `rows`, and `rows`; a
    forward of another size is padded with rows that no row attends to.

    Args:
        lm: The model; besides the captured forwards, only longer prefills run on this cache.
        capacity: Rows of text and tree together.
        rows: Most rows of a captured forward.
    """

    def __init__(self, lm: LayeredLM, capacity: int, rows: int) -> None:
        # Padding rows may be written behind the last row of text.
        keys = lm.new_cache(1).keys[0]
        super().__init__(
            lm.num_layers, keys.shape[1], keys.shape[3], capacity + rows, keys.dtype, keys.device
        )
        self._steps = {size: _Step(lm, self, size) for size in _sizes(rows)}
        self._largest = rows
        if lm.device.type == "cuda":
            for step in self._steps.values():
                step.capture()

    def takes(self, rows: int) -> bool:
        """Whether a forward of `rows` rows is captured: it is short, and the cache is not empty."""
        return bool(self.lengths[0]) and rows <= self._largest

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Run all layers, without the head.

        Args:
            ids: ``[1, rows]`` int64.
            positions: ``[1, rows]`` int64.
            mask: ``[1, 1, rows, keys]``, additive float. None attends to all rows; allowed for one row only.

        Returns:
            Last-layer states ``[1, rows, hidden]``, before the final norm; the next forward overwrites them.

        Raises:
            ValueError: several rows without a mask, or a boolean mask; the result would be silently wrong.
        """
        start, rows = self.lengths[0], ids.shape[1]
        if rows > 1 if mask is None else mask.dtype == torch.bool:
            raise ValueError("graphed forwards of several rows need an additive attention mask")
        step = next(step for size, step in self._steps.items() if size >= rows)
        states = step.run(ids, positions, mask, start)
        self.lengths = [start + rows] * len(self.lengths)
        return states[:, :rows]


class _Slots:
    """A cache as a layer sees it in a captured forward: rows are written by index, all rows are returned."""

    def __init__(self, cache: StaticCache, slots: Tensor) -> None:
        self._cache = cache
        self._slots = slots

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object) -> tuple[Tensor, Tensor]:
        """Write rows and return all rows of the layer, used or not."""
        all_keys, all_values = self._cache.keys[layer_idx], self._cache.values[layer_idx]
        with distinct_indices():
            all_keys.index_copy_(2, self._slots, keys)
            all_values.index_copy_(2, self._slots, values)
        return all_keys, all_values


class _Step:
    """The forward of one number of rows: its inputs at fixed addresses, and its CUDA graph."""

    def __init__(self, lm: LayeredLM, cache: StaticCache, size: int) -> None:
        device = lm.device
        self._lm = lm
        self._ids = torch.zeros(1, size, dtype=torch.int64, device=device)
        self._positions = torch.zeros(1, size, dtype=torch.int64, device=device)
        self._mask = torch.zeros(1, 1, size, cache.capacity, dtype=lm.dtype, device=device)
        self._first = torch.arange(size, device=device)
        self._slots = self._first.clone()
        self._cache = _Slots(cache, self._slots)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._states: Tensor

    def run(self, ids: Tensor, positions: Tensor, mask: Tensor | None, start: int) -> Tensor:
        """Copy the inputs and run all layers; returns states ``[1, size, hidden]``."""
        rows = ids.shape[1]
        self._ids[:, :rows] = ids
        self._positions[:, :rows] = positions
        torch.add(self._first, start, out=self._slots)
        self._mask.fill_(float("-inf"))
        self._mask[..., :rows, : start + rows] = 0.0 if mask is None else mask
        # Padding rows attend to the first row: a softmax over nothing would put NaN into the cache.
        self._mask[..., rows:, 0] = 0.0
        if self._graph is None:
            return self._layers()
        self._graph.replay()
        return self._states

    def _layers(self) -> Tensor:
        return self._lm.states(self._ids, self._positions, self._mask, self._cache)

    def capture(self) -> None:
        """Record the layers as a CUDA graph; the cache rows that this writes are not in use yet."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Libraries initialise themselves in their first calls, which a capture must not record.
        with torch.cuda.stream(stream):
            for _ in range(WARMUPS):
                self._layers()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._states = self._layers()
        self._graph = graph


def last_states(
    lm: LayeredLM,
    ids: Tensor,
    positions: Tensor,
    mask: Tensor | None = None,
    cache: StaticCache | None = None,
) -> Tensor:
    """`LayeredLM.states`, by a captured forward where the cache has one for this number of rows.

    Args:
        lm: The model.
        ids: ``[1, rows]`` int64.
        positions: ``[1, rows]`` int64.
        mask: ``[1, 1, rows, keys]``, additive float; None as `LayeredLM.layer` takes it.
        cache: Takes the rows' keys and values.

    Returns:
        ``[1, rows, hidden]``, before the final norm; on a `GraphedCache` the next forward overwrites it.
    """
    if isinstance(cache, GraphedCache) and cache.takes(ids.shape[1]):
        return cache.forward(ids, positions, mask)
    return lm.states(ids, positions, mask, cache)


def cache_for(lm: LayeredLM, capacity: int, rows: int) -> StaticCache:
    """The fastest cache for forwards of up to `rows` rows on the model's device."""
    return GraphedCache(lm, capacity, rows) if lm.device.type == "cuda" else lm.new_cache(capacity)


def _sizes(rows: int) -> Iterator[int]:
    size = 1
    while size < rows:
        yield size
        size *= 2
    yield rows
