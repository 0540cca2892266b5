"""The target's last-layer states, which its head reads and a distilled draft, too."""

from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.graphs import GraphedCache
from ablations.lm.layered import LayeredLM


def last_states(
    lm: LayeredLM,
    ids: Tensor,
    positions: Tensor,
    mask: Tensor | None = None,
    cache: StaticCache | None = None,
) -> Tensor:
    """Run all layers, without the head.

    Args:
        lm: The model.
        ids: ``[1, rows]`` int64.
        positions: ``[1, rows]`` int64.
        mask: As `LayeredLM.layer` takes it.
        cache: Takes the rows' keys and values.

    Returns:
        ``[1, rows, hidden]``, before the final norm; on a `GraphedCache` the next forward overwrites them.
    """
    if isinstance(cache, GraphedCache) and cache.takes(ids.shape[1]):
        return cache.forward(ids, positions, mask)
    hidden = lm.embed(ids)
    rotary = lm.rotary(hidden, positions)
    for index in range(lm.num_layers):
        hidden = lm.layer(index, hidden, rotary, mask, cache)
    return hidden
