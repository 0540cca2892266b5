import math

import pytest
import torch
from torch.nn import functional as F

from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.continuation import continuation_states, continue_layers
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.prefill import no_scores, prefill
from ablations.sdtp.pruned.pruning import DENSE, Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.importance import Prompt
from ablations.sdtp.scores.pruner import Pruner
from ablations.specs.sdtp.counts import Preserve
from tests.sdtp.naive import naive_greedy, naive_logits

LAYERS = (1, 3, 4)
RATIOS = (0.7, 0.7, 0.7)


@pytest.fixture
def pruner(lm):
    torch.manual_seed(3)
    return Pruner(lm.config.hidden_size, 16, len(LAYERS)).requires_grad_(False)


def scorer_of(pruner):
    return lambda stage, states, indices: pruner(stage, states)


def run(lm, ids, pruning, scorer, prompt=48):
    cache = lm.new_cache(len(ids))
    result = prefill(lm, ids[:prompt], cache, pruning, scorer)
    lengths = list(cache.lengths)
    states = continuation_states(lm, result, cache, ids[prompt:])
    assert torch.equal(states[0], result.state)
    nll = F.cross_entropy(lm.head(states[None])[0], ids[prompt:])
    return result, lengths, nll


def double_scores(lm, pruner):
    """The same scorers in float64, written out."""
    double = Pruner(lm.config.hidden_size, 16, 3).double()
    double.load_state_dict(pruner.state_dict())

    def scores(stage, states):
        normalised = states / (states.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
        scorer = double.scorers[stage]
        outputs = scorer.outer(F.gelu(scorer.inner(normalised)))
        return outputs[:, 0] - outputs[:, 1]

    return scores


def count_rows(entered, index):
    def hook(module, args):
        entered.setdefault(index, args[0].shape[1])

    return hook


def plain_logits(lm, ids):
    """The forward of `transformers`."""
    return lm.model(ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_ratio_one_equals_plain_forward(lm, ids, pruner, positions):
    pruning = Pruning(LAYERS, (1.0,) * 3, Preserve(head=2, tail=5), positions)
    result, lengths, nll = run(lm, ids, pruning, scorer_of(pruner))
    expected = plain_logits(lm, ids)
    assert lengths == [48] * 6
    assert result.position_offsets == dict.fromkeys(range(6), 0)
    torch.testing.assert_close(result.logits, expected[47], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(nll, F.cross_entropy(expected[47:-1], ids[48:]), atol=2e-5, rtol=1e-5)


def test_no_stages_is_the_plain_forward(lm, ids):
    result, lengths, nll = run(lm, ids, DENSE, no_scores)
    expected = plain_logits(lm, ids)
    assert lengths == [48] * 6
    torch.testing.assert_close(result.logits, expected[47], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(nll, F.cross_entropy(expected[47:-1], ids[48:]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["original", "packed"])
@pytest.mark.parametrize(("head", "tail"), [(2, 5), (0, 0), (0, 5), (3, 0)])
def test_pruned_matches_naive_masked_float64(lm, ids, pruner, positions, head, tail):
    entered = {}
    hooks = [
        layer.register_forward_pre_hook(count_rows(entered, index)) for index, layer in enumerate(lm.layers)
    ]
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=head, tail=tail), positions)
    result, lengths, nll = run(lm, ids, pruning, scorer_of(pruner))
    for hook in hooks:
        hook.remove()
    # 48 -> ceil(33.6) = 34 -> ceil(23.8) = 24 -> ceil(16.8) = 17
    assert [entered[index] for index in range(6)] == [48, 34, 34, 24, 17, 17]
    assert lengths == [48, 34, 34, 24, 17, 17]

    expected, alive_at = naive_logits(
        lm, double_scores(lm, pruner), ids[:48], ids[48:], list(LAYERS), RATIOS, head, tail, positions
    )
    assert [len(alive) for alive in alive_at] == lengths
    assert result.kept.tolist() == alive_at[-1]
    torch.testing.assert_close(result.logits.double(), expected[0], atol=1e-4, rtol=1e-4)
    naive_nll = F.cross_entropy(expected[:-1], ids[48:])
    torch.testing.assert_close(nll.double(), naive_nll, atol=1e-5, rtol=1e-5)
    plain = F.cross_entropy(plain_logits(lm, ids)[47:-1], ids[48:])
    assert abs(nll - plain) > 1e-3, "pruning must be visible in this test"


def test_dropped_last_token_hands_over_to_the_last_kept(llama, ids):
    def earliest(stage, states, indices):
        return torch.arange(states.shape[0], 0, -1, dtype=torch.float32)

    pruning = Pruning((1,), (0.5,), Preserve(head=0, tail=0))
    result, _, _ = run(llama, ids, pruning, earliest)
    assert result.kept.tolist() == list(range(24))
    expected = plain_logits(llama, ids)[23]
    torch.testing.assert_close(result.logits, expected, atol=2e-5, rtol=1e-5)


KINDS = [
    {},
    {"positions": "packed"},
    {"propagation": "local"},
    {"propagation": "local", "positions": "packed"},
    {"propagation": "stale_keys"},
    {"mask": "soft", "temperature": 0.5},
]


def naive_arguments(lm, pruner, kind, head, tail):
    arguments = (double_scores(lm, pruner), list(LAYERS), RATIOS, head, tail)
    return arguments, {key: value for key, value in kind.items() if key != "mask"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())) or "plain")
@pytest.mark.parametrize(("head", "tail"), [(2, 5), (0, 0)])
def test_every_layer_continues_after_its_own_prompt(lm, ids, pruner, kind, head, tail):
    """A continuation in one forward and token by token, against the naive float64 forward."""
    prompt, continuation = ids[:48], ids[48:]
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=head, tail=tail), **kind)
    (scores, *where), keywords = naive_arguments(lm, pruner, kind, head, tail)
    expected, _ = naive_logits(lm, scores, prompt, continuation, *where, **keywords)

    def prefilled():
        cache = lm.new_cache(60)
        return prefill(lm, prompt, cache, pruning, scorer_of(pruner)), cache

    result, cache = prefilled()
    at_once = lm.head(continuation_states(lm, result, cache, continuation)[None])[0]
    torch.testing.assert_close(at_once.double(), expected[:-1], atol=2e-4, rtol=1e-4)
    result, cache = prefilled()
    states = [result.state]
    for token in continuation[:-1]:
        hidden = lm.embed(token[None, None])
        offsets, weights = result.position_offsets, result.weights
        states.append(continue_layers(lm, hidden, range(lm.num_layers), offsets, cache, weights)[0, 0])
    one_by_one = lm.head(torch.stack(states)[None])[0]
    torch.testing.assert_close(one_by_one.double(), expected[:-1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())) or "plain")
def test_greedy_tokens_are_those_of_float64(lm, ids, pruner, kind):
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5), **kind)
    (scores, *where), keywords = naive_arguments(lm, pruner, kind, 2, 5)
    expected, gap = naive_greedy(lm, scores, ids[:48], 8, *where, **keywords)
    assert gap > 1e-3, "a tie in this test; change the seed of the ids"
    cache = lm.new_cache(60)
    result = prefill(lm, ids[:48], cache, pruning, scorer_of(pruner))
    assert greedy_decode(lm, result, cache, 8).tolist() == expected


def test_packed_positions_are_one_per_layer(llama, ids):
    scores = scorer_of(Pruner(llama.config.hidden_size, 16, 3))
    packed, lengths, packed_nll = run(llama, ids, Pruning(LAYERS, RATIOS, Preserve(), "packed"), scores)
    original, _, nll = run(llama, ids, Pruning(LAYERS, RATIOS, Preserve(), "original"), scores)
    assert lengths == [48, 34, 34, 24, 20, 20]
    assert [packed.position_offsets[layer] for layer in range(6)] == [0] * 6
    assert [original.position_offsets[layer] for layer in range(6)] == [0, 14, 14, 24, 28, 28]
    assert abs(packed_nll - nll) > 1e-3


@pytest.mark.parametrize("tokens", [20, 37, 60])
@pytest.mark.parametrize("kind", [{}, {"propagation": "local"}, {"propagation": "stale_keys"}])
def test_a_protected_share_is_resolved_per_prompt(llama, ids, tokens, kind):
    """The last tokens have the lowest scores and are kept, with one configuration for all lengths."""
    pruning = Pruning(LAYERS, (0.5, 0.5, 0.01), Preserve(head=0.1, tail=0.3), **kind)
    result = prefill(
        llama, ids[:tokens], llama.new_cache(tokens), pruning, lambda stage, states, indices: -indices.float()
    )
    head, tail = math.ceil(tokens / 10), math.ceil(tokens * 3 / 10)
    assert result.kept.tolist() == [*range(head), *range(tokens - tail, tokens)]


def test_random_scores_repeat_with_their_seed(llama, ids):
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5))

    def kept(seed):
        result, _, nll = run(llama, ids, pruning, importance.random(seed).scorer(Prompt(ids, 0)))
        return result.kept.tolist(), nll.item()

    assert kept(0) == kept(0)
    assert kept(0)[0] != kept(1)[0]


@pytest.mark.parametrize("propagation", ["local", "stale_keys"])
@pytest.mark.parametrize(("head", "tail"), [(2, 5), (0, 0)])
def test_propagation_matches_naive_float64(lm, ids, pruner, propagation, head, tail):
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=head, tail=tail), propagation=propagation)
    result, lengths, nll = run(lm, ids, pruning, scorer_of(pruner))
    expected, alive_at = naive_logits(
        lm,
        double_scores(lm, pruner),
        ids[:48],
        ids[48:],
        list(LAYERS),
        RATIOS,
        head,
        tail,
        propagation=propagation,
    )
    assert result.kept.tolist() == alive_at[-1]
    assert lengths == ([48] * 6 if propagation == "stale_keys" else [len(alive) for alive in alive_at])
    torch.testing.assert_close(result.logits.double(), expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(nll.double(), F.cross_entropy(expected[:-1], ids[48:]), atol=1e-5, rtol=1e-5)
    _, _, cascade_nll = run(lm, ids, Pruning(LAYERS, RATIOS, pruning.preserve), scorer_of(pruner))
    assert abs(cascade_nll - nll) > 1e-4, "propagation must be visible in this test"
    if propagation == "local":
        returned = set(alive_at[3]) - set(alive_at[1]) | set(alive_at[4]) - set(alive_at[3])
        assert returned, "a token must come back in this test"


def test_local_packs_what_each_stage_chose(llama, ids):
    pruner = Pruner(llama.config.hidden_size, 16, 3).requires_grad_(False)
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5), "packed", propagation="local")
    result, _, nll = run(llama, ids, pruning, scorer_of(pruner))
    expected, alive_at = naive_logits(
        llama,
        double_scores(llama, pruner),
        ids[:48],
        ids[48:],
        list(LAYERS),
        RATIOS,
        2,
        5,
        "packed",
        "local",
    )
    assert result.kept.tolist() == alive_at[-1]
    torch.testing.assert_close(nll.double(), F.cross_entropy(expected[:-1], ids[48:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_soft_mask_matches_naive_float64(lm, ids, pruner, temperature):
    preserve = Preserve(head=2, tail=5)
    pruning = Pruning(LAYERS, RATIOS, preserve, mask="soft", temperature=temperature)
    result, lengths, nll = run(lm, ids, pruning, scorer_of(pruner))
    expected, _ = naive_logits(
        lm,
        double_scores(lm, pruner),
        ids[:48],
        ids[48:],
        list(LAYERS),
        RATIOS,
        2,
        5,
        temperature=temperature,
    )
    assert lengths == [48] * 6
    assert result.kept.tolist() == list(range(48))
    assert all(weights[:2].tolist() == [1, 1] for weights in result.weights)
    torch.testing.assert_close(result.logits.double(), expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(nll.double(), F.cross_entropy(expected[:-1], ids[48:]), atol=1e-5, rtol=1e-5)


def test_soft_mask_with_zeros_and_ones_is_hard_pruning(lm, ids, pruner):
    preserve = Preserve(head=2, tail=5)
    # At this temperature every keep probability is zero or one.
    soft = Pruning(LAYERS, RATIOS, preserve, mask="soft", temperature=1e-9)
    result, _, nll = run(lm, ids, soft, scorer_of(pruner))
    hard, _, hard_nll = run(lm, ids, Pruning(LAYERS, RATIOS, preserve), scorer_of(pruner))
    assert set(torch.stack(result.weights).unique().tolist()) == {0.0, 1.0}
    assert result.weights[-1].nonzero()[:, 0].tolist() == hard.kept.tolist()
    torch.testing.assert_close(result.logits, hard.logits, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(nll, hard_nll, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("positions", "propagation", "kept", "rows"),
    [
        # 10 tokens, ratio 0.6: 6 after the first stage, 4 after the second; 0 and 9 are protected.
        ("original", "cascade", [[0, 3, 5, 6, 7, 9], [0, 3, 6, 9]], [[0, 3, 5, 6, 7, 9], [0, 3, 6, 9]]),
        ("packed", "cascade", [[0, 3, 5, 6, 7, 9], [0, 3, 6, 9]], [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3]]),
        # Token 1 comes back at the second stage.
        ("original", "local", [[0, 3, 5, 6, 7, 9], [0, 1, 3, 9]], [[0, 3, 5, 6, 7, 9], [0, 1, 3, 9]]),
        ("packed", "local", [[0, 3, 5, 6, 7, 9], [0, 1, 3, 9]], [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3]]),
    ],
)
def test_two_stages_by_hand(llama, ids, monkeypatch, positions, propagation, kept, rows):
    table = torch.tensor(
        [
            [0.0, 0.1, 0.2, 0.9, 0.3, 0.8, 0.7, 0.6, 0.4, 0.0],
            [0.0, 0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.4, 0.1, 0.0],
        ]
    )
    seen = []
    layer = LayeredLM.layer

    def spy(self, index, hidden, rotary, mask=None, cache=None):
        seen.append((index, hidden.shape[1], rotary[0]))
        return layer(self, index, hidden, rotary, mask, cache)

    monkeypatch.setattr(LayeredLM, "layer", spy)
    living = []

    def scorer(stage, states, indices):
        living.append(indices.tolist())
        return table[stage, indices]

    pruning = Pruning((2, 4), (0.6, 0.6), Preserve(head=1, tail=1), positions, propagation=propagation)
    cache = llama.new_cache(12)
    result = prefill(llama, ids[:10], cache, pruning, scorer)
    assert living == [list(range(10)), list(range(10)) if propagation == "local" else kept[0]]
    assert result.kept.tolist() == kept[1]
    assert [count for _, count, _ in seen] == [10, 10, 6, 6, 4, 4]
    for stage, first in enumerate((2, 4)):
        expected, _ = llama.rotary(llama.embed(ids[None, :1]), torch.tensor(rows[stage])[None])
        for _, _, cosines in seen[first : first + 2]:
            torch.testing.assert_close(cosines, expected)
    seen.clear()
    continuation_states(llama, result, cache, ids[10:13])
    for (index, count, cosines), end in zip(seen, [10, 10, 6, 6, 4, 4], strict=True):
        first = end if positions == "packed" else 10
        expected, _ = llama.rotary(llama.embed(ids[None, :1]), torch.tensor([[first, first + 1]]))
        torch.testing.assert_close(cosines, expected)
        assert (count, cache.lengths[index]) == (2, end + 2)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"positions": "packed"},
        {"propagation": "local"},
        {"propagation": "stale_keys"},
        {"mask": "soft"},
    ],
)
def test_top_k_never_waits_for_the_device(lm, pruner, kind):
    """On the meta device reading a value raises."""
    lm.model.to("meta")
    ids = torch.empty(48, dtype=torch.int64, device="meta")
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5), **kind)
    result = prefill(lm, ids, lm.new_cache(48), pruning, scorer_of(pruner.to("meta")))
    assert result.logits.shape == (97,)
    with pytest.raises(RuntimeError, match="meta"):
        result.logits.argmax().item()


def test_stale_positions_raise_in_the_models_own_rotary_application(lm, ids, pruner):
    pruning = Pruning(LAYERS, RATIOS, Preserve(head=2, tail=5), "stale")
    with pytest.raises(RuntimeError, match=r"size of tensor a \(34\) must match.*\(48\)") as caught:
        run(lm, ids, pruning, scorer_of(pruner))
    frame = caught.traceback[-1].frame
    assert frame.code.name == "apply_rotary_pos_emb"
    assert frame.f_globals["__name__"].startswith("transformers.models.")
