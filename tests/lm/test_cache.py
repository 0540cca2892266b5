"""The static cache on its own."""

import pytest
import torch

from ablations.lm.cache import StaticCache


@pytest.fixture
def cache() -> StaticCache:
    return StaticCache(
        2, kv_heads=3, head_dim=4, capacity=10, dtype=torch.float32, device=torch.device("cpu")
    )


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(1, 3, count, 4, generator=torch.Generator().manual_seed(seed))


def test_update_appends_per_layer(cache: StaticCache) -> None:
    first, second = rows(4, 1), rows(2, 2)
    cache.update(first, -first, 1)
    keys, values = cache.update(second, -second, 1)
    assert torch.equal(keys, torch.cat([first, second], dim=2))
    assert torch.equal(values, -keys)
    assert cache.lengths == [0, 6]


def test_too_many_rows(cache: StaticCache) -> None:
    cache.update(rows(9, 1), rows(9, 2), 0)
    with pytest.raises(ValueError, match="10 rows cannot hold 11"):
        cache.update(rows(2, 3), rows(2, 4), 0)
    assert cache.lengths == [9, 0]


def test_keep_compacts_the_rows_after_start(cache: StaticCache) -> None:
    keys = [rows(8, layer) for layer in range(2)]
    for layer in range(2):
        cache.update(keys[layer], -keys[layer], layer)
    cache.keep(3, torch.tensor([0, 2, 3]))
    assert cache.lengths == [6, 6]
    for layer in range(2):
        assert torch.equal(cache.keys[layer][:, :, :6], keys[layer][:, :, [0, 1, 2, 3, 5, 6]])
        assert torch.equal(cache.values[layer][:, :, :6], -keys[layer][:, :, [0, 1, 2, 3, 5, 6]])


def test_truncate_leaves_shorter_layers_alone(cache: StaticCache) -> None:
    cache.update(rows(8, 1), rows(8, 2), 0)
    cache.update(rows(3, 3), rows(3, 4), 1)
    cache.truncate(5)
    assert cache.lengths == [5, 3]


def test_bytes_in_use(cache: StaticCache) -> None:
    cache.update(rows(8, 1), rows(8, 2), 0)
    cache.update(rows(3, 3), rows(3, 4), 1)
    assert cache.bytes_in_use() == 2 * (8 + 3) * 3 * 4 * 4
