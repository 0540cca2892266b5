import pytest
import torch
from torch.nn import functional as F

from ablations.sdtp.continuation import continuation_nll
from ablations.sdtp.masks import masked_forward
from ablations.sdtp.prefill import DENSE, Pruning, no_scores, prefill, random_scores
from ablations.sdtp.pruner import Pruner
from ablations.sdtp.selection import select, stage_counts
from ablations.study.contracts.sdtp import Preserve
from tests.sdtp.naive import naive_logits

LAYERS = (1, 3, 4)
RATIOS = (0.7, 0.7, 0.7)


@pytest.fixture
def pruner(lm):
    torch.manual_seed(3)
    return Pruner(lm.config.hidden_size, 16, len(LAYERS)).requires_grad_(False)


def run(lm, ids, pruning, scorer, prompt=48):
    cache = lm.new_cache(len(ids))
    result = prefill(lm, ids[:prompt], cache, pruning, scorer)
    lengths = list(cache.lengths)
    nll = continuation_nll(lm, result, cache, ids[prompt:])
    return result, lengths, nll


def count_rows(entered, index):
    def hook(module, args):
        entered.setdefault(index, args[0].shape[1])

    return hook


def plain_logits(lm, ids):
    return lm.model(ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_ratio_one_equals_plain_forward(lm, ids, pruner, positions):
    pruning = Pruning(LAYERS, (1.0,) * 3, Preserve(head=2, tail=5), positions)
    result, lengths, nll = run(lm, ids, pruning, pruner)
    expected = plain_logits(lm, ids)
    assert lengths == [48] * 6
    assert result.next_position == 48
    torch.testing.assert_close(result.logits, expected[47], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(nll, F.cross_entropy(expected[47:-1], ids[48:]), atol=2e-5, rtol=1e-5)


def test_no_stages_is_the_plain_forward(lm, ids):
    result, lengths, nll = run(lm, ids, DENSE, no_scores)
    expected = plain_logits(lm, ids)
    assert lengths == [48] * 6
    torch.testing.assert_close(result.logits, expected[47], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(nll, F.cross_entropy(expected[47:-1], ids[48:]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["original", "packed"])
@pytest.mark.parametrize(("head", "tail"), [(2, 5), (0, 0), (0, 5), (3, 0)])
def test_pruned_matches_naive_masked_float64(lm, ids, pruner, positions, head, tail):
    entered = {}
    hooks = [
        layer.register_forward_pre_hook(count_rows(entered, index)) for index, layer in enumerate(lm.layers)
    ]
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=head, tail=tail), positions)
    result, lengths, nll = run(lm, ids, pruning, pruner)
    for hook in hooks:
        hook.remove()
    # 48 -> ceil(33.6) = 34 -> ceil(23.8) = 24 -> ceil(16.8) = 17
    assert [entered[index] for index in range(6)] == [48, 34, 34, 24, 17, 17]
    assert lengths == [48, 34, 34, 24, 17, 17]

    double = Pruner(lm.config.hidden_size, 16, 3).double()
    double.load_state_dict(pruner.state_dict())

    def scores(stage, states):
        normalised = states / (states.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
        scorer = double.scorers[stage]
        outputs = scorer.outer(F.gelu(scorer.inner(normalised)))
        return outputs[:, 0] - outputs[:, 1]

    expected, alive_at = naive_logits(
        lm, scores, ids[:48], ids[48:], list(LAYERS), RATIOS, head, tail, positions
    )
    assert [len(alive) for alive in alive_at] == lengths
    assert result.kept.tolist() == alive_at[-1]
    torch.testing.assert_close(result.logits.double(), expected[0], atol=1e-4, rtol=1e-4)
    naive_nll = F.cross_entropy(expected[:-1], ids[48:])
    torch.testing.assert_close(nll.double(), naive_nll, atol=1e-5, rtol=1e-5)
    plain = F.cross_entropy(plain_logits(lm, ids)[47:-1], ids[48:])
    assert abs(nll - plain) > 1e-3, "pruning must be visible in this test"


def test_dropped_last_token_hands_over_to_the_last_kept(llama, ids):
    def earliest(stage, states):
        return torch.arange(states.shape[0], 0, -1, dtype=torch.float32)

    pruning = Pruning((1,), (0.5,), Preserve(head=0, tail=0))
    result, _, _ = run(llama, ids, pruning, earliest)
    assert result.kept.tolist() == list(range(24))
    expected = plain_logits(llama, ids)[23]
    torch.testing.assert_close(result.logits, expected, atol=2e-5, rtol=1e-5)


def test_packed_positions_continue_after_the_last_survivor(llama, ids):
    scores = Pruner(llama.config.hidden_size, 16, 3)
    packed, _, packed_nll = run(llama, ids, Pruning(LAYERS, RATIOS, Preserve(), "packed"), scores)
    original, _, nll = run(llama, ids, Pruning(LAYERS, RATIOS, Preserve(), "original"), scores)
    assert (packed.next_position, original.next_position) == (20, 48)
    assert abs(packed_nll - nll) > 1e-3


def test_random_scores_repeat_with_their_seed(llama, ids):
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5))

    def kept(seed):
        result, _, nll = run(llama, ids, pruning, random_scores(torch.Generator().manual_seed(seed)))
        return result.kept.tolist(), nll.item()

    assert kept(0) == kept(0)
    assert kept(0)[0] != kept(1)[0]


def test_hard_masks_equal_hard_pruning(lm, ids, pruner):
    """The simulated model of training is the pruned model of inference."""
    preserve = Preserve(head=2, tail=5)
    window = ids[:48]
    counts = stage_counts(48, RATIOS, preserve)

    def keep(stage, states, visible):
        alive = visible.nonzero()[:, 0]
        chosen = alive[select(pruner(stage, states[alive]), counts[stage], preserve)]
        return torch.zeros(48).index_fill(0, chosen, 1.0)

    masked = masked_forward(lm, window, LAYERS, keep)
    result, lengths, _ = run(lm, ids, Pruning(LAYERS, RATIOS, preserve), pruner)
    assert masked.visible.nonzero()[:, 0].tolist() == result.kept.tolist()
    assert masked.living.sum(-1).tolist() == [lengths[0], lengths[2], lengths[3]]
    logits = lm.head(masked.hidden[None, -1:])[0, 0]
    torch.testing.assert_close(logits, result.logits, atol=2e-5, rtol=1e-5)
