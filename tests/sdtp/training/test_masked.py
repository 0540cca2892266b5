"""Simulated pruning: what a stage keeps, and what its scores have gradients of."""

import math

import pytest
import torch

from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.masks import attention_mask
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.training.masked import masked_forward, sample_keep
from ablations.specs.sdtp.counts import Preserve, Protected, stage_counts

TOKENS = 20
PROTECTED = Protected(2, 3)


@pytest.fixture
def scores():
    return torch.randn(TOKENS, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("keep", [14, 7, 5])
def test_keeps_as_many_as_top_k_and_the_protected(scores, temperature, keep):
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_keep(scores, keep, PROTECTED, temperature, generator) for _ in range(9)]
    for mask in drawn:
        assert mask.round().sum().item() == keep
        assert mask[:2].tolist() == [1, 1]
        assert mask[-3:].tolist() == [1, 1, 1]
    assert (len({tuple(mask.round().tolist()) for mask in drawn}) > 5) == (keep > 5), "noise explores"


def test_without_noise_it_is_top_k(scores):
    drawn = sample_keep(scores, 10, PROTECTED, 0.5, None)
    inner = scores[2:-3].argsort(descending=True)[:5] + 2
    assert set(drawn.round().nonzero()[:, 0].tolist()) == {0, 1, 17, 18, 19, *inner.tolist()}


def test_each_row_of_a_batch_is_drawn_by_itself(scores):
    batch = torch.stack([scores.detach(), scores.detach().flip(0)])
    together = sample_keep(batch, 10, PROTECTED, 0.5, None)
    assert torch.equal(together, torch.stack([sample_keep(row, 10, PROTECTED, 0.5, None) for row in batch]))


def test_noise_is_added_before_the_temperature_divides():
    """As in the Gumbel-softmax of Jang et al. (2017), the hard sample is the same at every temperature."""
    scores = torch.tensor([1.5, 0.0]).expand(20_000, 2)
    drawn = [
        sample_keep(scores, 1, Protected(0, 0), temperature, torch.Generator().manual_seed(0)).round()
        for temperature in (0.1, 0.5, 2.0)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    # P(a + X > Y) of two logistic X, Y: e^a (e^a - 1 - a) / (e^a - 1)^2
    odds = math.exp(1.5)
    assert drawn[0][:, 0].mean().item() == pytest.approx(odds * (odds - 2.5) / (odds - 1) ** 2, abs=0.01)


@pytest.mark.parametrize("seed", [None, 1])
def test_the_gradient_is_that_of_the_soft_mask(scores, seed):
    temperature = 0.5
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    sample_keep(scores, 10, PROTECTED, temperature, generator).sum().backward()
    noisy = scores.detach()
    if seed is not None:
        noisy = noisy + torch.rand(TOKENS, generator=torch.Generator().manual_seed(seed)).logit()
    ordered = noisy[2:-3].sort(descending=True).values
    probability = torch.sigmoid((noisy - (ordered[4] + ordered[5]) / 2) / temperature)
    expected = probability * (1 - probability) / temperature
    expected[:2] = 0
    expected[-3:] = 0
    torch.testing.assert_close(scores.grad, expected)


LAYERS, COUNTS, PROMPT = (1, 3, 4), (35, 25, 16), 50


def states_before(lm, windows, layer):
    """``[batch, tokens, hidden]`` of the unpruned model at the input of a layer."""
    states = lm.model(windows, output_hidden_states=True, use_cache=False).hidden_states[layer]
    return states.detach()


def run(lm, windows, scores, end=None, layers=LAYERS, protected=PROTECTED):
    """Masked forward of ``[batch, 60]`` ids with fixed scores ``[stages, batch, prompt]``, without noise."""

    def keep(stage, states, indices):
        assert not states.requires_grad
        return sample_keep(scores[stage].gather(1, indices), COUNTS[stage], protected, 0.5, None)

    return masked_forward(lm, states_before(lm, windows, layers[0]), layers, COUNTS, PROMPT, keep, end)


def naive(lm, window, scores, protected):
    """The same of one window with all of its tokens in all layers; ``[tokens, hidden]``."""
    hidden = lm.embed(window[None])
    rotary = lm.rotary(hidden, torch.arange(60)[None])
    visible, mask = torch.ones(60), None
    for layer in range(lm.num_layers):
        if layer in LAYERS:
            stage = LAYERS.index(layer)
            living = [token for token in range(PROMPT) if visible[token] > 0.5]
            kept = sample_keep(scores[stage, living], COUNTS[stage], protected, 0.5, None)
            stage_mask = torch.zeros(60).index_put((torch.tensor(living),), kept)
            stage_mask[PROMPT:] = 1
            visible = visible * stage_mask
            mask = attention_mask(visible[None], lm.dtype)
        hidden = lm.layer(layer, hidden, rotary, mask)
    last = max(token for token in range(PROMPT) if visible[token] > 0.5)
    return torch.cat([hidden[0, last][None], hidden[0, PROMPT:]])


@pytest.mark.parametrize("protected", [PROTECTED, Protected(0, 0)])
def test_dropped_tokens_leave_without_a_trace_in_result_or_gradient(lm, ids, protected):
    """What a stage dropped leaves at the next one: neither result nor gradient is another."""
    windows = torch.stack([ids, ids.flip(0)])
    scores = torch.randn(3, 2, PROMPT, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = run(lm, windows, scores, protected=protected)
    expected = torch.stack([naive(lm, windows[row], scores[:, row], protected) for row in range(2)])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((out * weight).sum(), scores)[0] for out in (result, expected)]
    assert ((gradients[1] != 0).sum(-1) >= 14).all(), (
        "every stage has a gradient, and not of kept tokens alone"
    )
    scale = gradients[1].abs().max().item()
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("protected", [PROTECTED, Protected(0, 0)])
def test_hard_masks_equal_hard_pruning(lm, ids, protected):
    """The masked model of training predicts what the pruned model of inference predicts."""
    torch.manual_seed(3)
    pruner = Pruner(lm.config.hidden_size, 16, len(LAYERS)).requires_grad_(False)
    ratios = (0.7, 0.7, 0.7)
    preserve = Preserve(head=protected.head, tail=protected.tail)
    counts = stage_counts(PROMPT, ratios, protected.tokens)
    score = pruner.of_prompt(PROMPT)

    def keep(stage, states, indices):
        return sample_keep(score(stage, states, indices), counts[stage], protected, 0.5, None)

    cache = lm.new_cache(60)
    prefilled = prefill(lm, ids[:PROMPT], cache, Pruning(LAYERS, ratios, preserve), score)
    expected = continuation_states(lm, prefilled, cache, ids[PROMPT:])
    result = masked_forward(lm, states_before(lm, ids[None], LAYERS[0]), LAYERS, counts, PROMPT, keep)
    torch.testing.assert_close(result[0, :-1], expected, atol=1e-4, rtol=1e-4)


def test_stages_run_on_what_the_stage_before_kept(llama, ids):
    scores = torch.randn(3, 1, PROMPT, generator=torch.Generator().manual_seed(0))
    rows = []
    hooks = [
        layer.register_forward_hook(lambda _, a, out: rows.append(out.shape[1])) for layer in llama.layers
    ]
    before = states_before(llama, ids[None], 1)
    rows.clear()
    kept = []

    def keep(stage, states, indices):
        mask = sample_keep(scores[stage].gather(1, indices), COUNTS[stage], PROTECTED, 0.5, None)
        kept.append((indices[0].tolist(), indices[mask > 0.5].tolist()))
        return mask

    masked_forward(llama, before, LAYERS, COUNTS, PROMPT, keep)
    for hook in hooks:
        hook.remove()
    assert rows == [60, 60, 45, 35, 35]
    assert kept[0][0] == list(range(PROMPT))
    assert kept[1][0] == kept[0][1]
    assert kept[2][0] == kept[1][1]
    assert [len(after) for _, after in kept] == [*COUNTS]


def test_windows_of_a_batch_do_not_meet(lm, ids):
    scores = torch.randn(3, 2, PROMPT, generator=torch.Generator().manual_seed(0))
    windows = torch.stack([ids, ids.flip(0)])
    both = run(lm, windows, scores)
    for row in range(2):
        alone = run(lm, windows[row : row + 1], scores[:, row : row + 1])
        torch.testing.assert_close(both[row], alone[0])


def test_a_forward_can_end_before_the_last_stage_s_layer(llama, ids):
    scores = torch.randn(3, 1, PROMPT, generator=torch.Generator().manual_seed(0))
    ran = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(llama.layers)
    ]
    run(llama, ids[None], scores, end=4)
    for hook in hooks:
        hook.remove()
    # The first six are of the unpruned model.
    assert ran[6:] == [1, 2, 3]
