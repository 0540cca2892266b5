import pytest
import torch

from ablations.lm.graphs import GraphedCache, cache_for
from ablations.lm.layered import LayeredLM
from tests.lm.tiny_models import tiny_model

ROWS = 6


@pytest.fixture(params=["llama", "gpt_neox"])
def lm(request) -> LayeredLM:
    return LayeredLM(tiny_model(request.param))


def states(lm: LayeredLM, ids: torch.Tensor, positions: torch.Tensor, mask, cache) -> torch.Tensor:
    hidden = lm.embed(ids)
    rotary = lm.rotary(hidden, positions)
    for index in range(lm.num_layers):
        hidden = lm.layer(index, hidden, rotary, mask, cache)
    return hidden


def tree_rows(rows: int, prefix: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and mask of a root and its children."""
    mask = torch.full((1, 1, rows, prefix + rows), -torch.inf)
    mask[..., : prefix + 1] = 0.0
    mask[..., range(rows), range(prefix, prefix + rows)] = 0.0
    positions = torch.full((1, rows), prefix + 1)
    positions[0, 0] = prefix
    return torch.randint(0, 97, (1, rows)), positions, mask


@torch.inference_mode()
def test_forwards_of_every_size_are_those_of_a_plain_cache(lm):
    """With padded sizes, rounds that keep some rows, and a second prompt on the same cache."""
    torch.manual_seed(0)
    plain, graphed = lm.new_cache(64), GraphedCache(lm, 64, ROWS)
    for prompt in (7, 3):
        ids, positions = torch.randint(0, 97, (1, prompt)), torch.arange(prompt)[None]
        for cache in (plain, graphed):
            cache.truncate(0)
            states(lm, ids, positions, None, cache)
        for rows in (1, 2, 3, 5, 6, 1, 4):
            ids, positions, mask = tree_rows(rows, plain.lengths[0])
            expected = states(lm, ids, positions, mask, plain)
            assert graphed.takes(rows)
            actual = graphed.forward(ids, positions, mask if rows > 1 else None)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
            for cache in (plain, graphed):
                cache.keep(cache.lengths[0] - rows, torch.tensor([0, rows - 1][: min(rows, 2)]))
        assert graphed.lengths == plain.lengths


@torch.inference_mode()
def test_first_and_long_forwards_are_not_graphed(lm):
    cache = GraphedCache(lm, 64, ROWS)
    assert not cache.takes(1)
    states(lm, torch.zeros(1, 5, dtype=torch.int64), torch.arange(5)[None], None, cache)
    assert cache.takes(ROWS)
    assert not cache.takes(ROWS + 1)


@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 2, 5, dtype=torch.bool)], ids=["none", "boolean"])
def test_masks_that_would_be_silently_wrong_are_refused(lm, mask):
    cache = GraphedCache(lm, 64, ROWS)
    ids = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="additive attention mask"):
        cache.forward(ids, ids, mask)


def test_the_cpu_has_no_graphs(lm):
    assert not isinstance(cache_for(lm, 8, ROWS), GraphedCache)
