from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ablations.sdtp.cost import kv_bytes, prefill_flops
from ablations.sdtp.prefill import Pruning, prefill
from ablations.sdtp.pruner import Pruner
from ablations.study.contracts.sdtp import Preserve


def test_flops_against_torch_counter(lm, ids):
    """torch counts the full square of causal attention; half of it, diagonal excluded, is never needed."""
    pruner = Pruner(lm.config.hidden_size, 16, 2)
    cache = lm.new_cache(60)
    pruning = Pruning((2, 4), (0.5, 0.5), Preserve(head=2, tail=3), "original")
    # Fused attention on the CPU is not counted at all.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prefill(lm, ids, cache, pruning, pruner)
    living = (60, 60, 30, 30, 15, 15)
    assert tuple(cache.lengths) == living
    # Four products of a multiply-add (two operations) over rows (rows - 1) / 2 unseen pairs, hidden 32.
    unseen = sum(4 * 32 * rows * (rows - 1) // 2 for rows in living)
    found = prefill_flops(lm, living, scored=(60, 30), width=16)
    assert found == counter.get_total_flops() - unseen


def test_kv_bytes(lm, ids):
    cache = lm.new_cache(80)
    prefill(lm, ids, cache)
    assert kv_bytes(cache, [60] * 6) == cache.bytes_in_use()
    assert kv_bytes(cache, [60, 60, 30, 30, 15, 15]) == cache.bytes_in_use() * 210 // 360


def test_dense_flops_by_hand(llama):
    # One row: q and o 32x32, k and v 32x16, three MLP matrices 32x64; attention 4*32; head 32x97.
    layer = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 4 * 32
    assert prefill_flops(llama, [1] * 6) == 6 * layer + 2 * 32 * 97
