from contextlib import nullcontext

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ablations.lm.packing import pack_linears
from ablations.sdtp.pruned.cost import (
    attention_flops,
    kv_bytes,
    planned_rows,
    prefill_flops,
    saliency_flops,
    scorer_flops,
)
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.pruner import Pruner
from ablations.specs.sdtp.counts import Preserve

WIDTH = 16
CASCADE = (60, 60, 30, 30, 15, 15)


class Untracked(nullcontext):
    """Takes the place of the counter's own module tracker, which cannot follow `torch.autograd.grad`."""

    parents = frozenset({"Global"})


def counted(work):
    """FLOPs that torch counts: linear layers exactly, and in attention all pairs, masked ones included."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    # Fused attention on the CPU is not counted at all.
    with sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return counter.get_total_flops()


def unseen(rows, products=2):
    """FLOPs of `products` products over the rows (rows - 1) / 2 masked pairs, with hidden size 32."""
    return 2 * products * 32 * rows * (rows - 1) // 2


@pytest.mark.parametrize(
    ("kind", "rows", "scored"),
    [
        ({}, CASCADE, (60, 30)),
        ({"propagation": "local"}, CASCADE, (60, 60)),
        ({"propagation": "stale_keys"}, (60,) * 6, (60, 30)),
        ({"mask": "soft"}, (60,) * 6, (60, 60)),
    ],
)
def test_flops_against_torch_counter(lm, ids, kind, rows, scored):
    pruner = Pruner(lm.config.hidden_size, WIDTH, 2).requires_grad_(False)
    cache = lm.new_cache(60)
    pruning = Pruning((2, 4), (0.5, 0.5), Preserve(head=2, tail=3), **kind)
    results = []
    total = counted(
        lambda: results.append(
            prefill(lm, ids, cache, pruning, lambda stage, states, _: pruner(stage, states))
        )
    )
    assert tuple(cache.lengths) == rows
    assert results[0].scored == scored
    assert prefill_flops(lm, rows) + scorer_flops(pruner, scored) == total - sum(map(unseen, rows))


@pytest.mark.parametrize("window", [1, 8, 40])
def test_attention_flops_against_torch_counter(lm, ids, monkeypatch, window):
    # Torch does not count packed linear layers.
    monkeypatch.setattr(importance, "pack_module", lambda module: None)
    pruning = Pruning((2, 4), (0.5, 0.5), Preserve(head=2, tail=3))
    which = importance.attention(lm, pruning.layers, window, "original")
    total = counted(
        lambda: prefill(lm, ids, lm.new_cache(60), pruning, which.scorer(importance.Prompt(ids, 0)))
    )
    # Of the second stage's 30 rows all may be in the window.
    masked = sum(map(unseen, CASCADE)) + sum(unseen(min(window, rows), products=1) for rows in (60, 30))
    assert prefill_flops(lm, CASCADE) + which.flops(60, (60, 30)) == total - masked


def test_attention_flops_by_hand(llama):
    # Keys 32x16 of five rows, queries 32x32 of two, products of width 32 of the pairs 4 + 5.
    assert attention_flops(llama, (5,), 2) == 2 * (5 * 32 * 16 + 2 * 32 * 32 + 9 * 32)
    assert attention_flops(llama, (5, 5), 2) == 2 * attention_flops(llama, (5,), 2)


def test_saliency_flops_against_torch_counter(lm, ids):
    total = counted(lambda: window_saliency(lm, ids, (2, 4), 8, "norm"))
    # Six layers forward, the last four backward with four products each.
    expected = total - 6 * unseen(60) - 4 * unseen(60, products=4)
    assert saliency_flops(lm, 60, 2, 8) == expected


def test_planned_rows_are_those_that_run():
    pruning = Pruning((2, 4), (0.5, 0.5), Preserve(head=2, tail=3))
    assert planned_rows(pruning, 60, 6) == (CASCADE, (60, 30))
    assert planned_rows(Pruning((), (), Preserve()), 60, 2) == ((60, 60), ())


def test_packed_linears_count_alike(lm):
    stock = prefill_flops(lm, CASCADE)
    pack_linears(lm)
    assert prefill_flops(lm, CASCADE) == stock


def test_kv_bytes(lm, ids):
    cache = lm.new_cache(80)
    prefill(lm, ids, cache)
    assert kv_bytes(cache, [60] * 6) == cache.bytes_in_use()
    assert kv_bytes(cache, CASCADE) == cache.bytes_in_use() * 210 // 360


def test_dense_flops_by_hand(llama):
    # One row: q and o 32x32, k and v 32x16, three MLP matrices 32x64; attention 4*32; head 32x97.
    layer = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 4 * 32
    assert prefill_flops(llama, [1] * 6) == 6 * layer + 2 * 32 * 97


def test_pairs_are_counted_once(llama):
    one_row, two_rows = (prefill_flops(llama, [rows] * 6) for rows in (1, 2))
    head = 2 * 32 * 97
    # Two rows see three pairs, not four.
    assert two_rows - head == 2 * (one_row - head) + 6 * 4 * 32
