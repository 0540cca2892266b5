import math

import pytest
import torch

from ablations.sdtp.pruned.masks import attention_mask, masked_forward, sample_keep
from ablations.specs.sdtp.counts import Protected

TOKENS = 20
PROTECTED = Protected(2, 3)


@pytest.fixture
def scores():
    return torch.randn(TOKENS, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_keeps_as_many_as_top_k_and_the_protected(scores, temperature):
    generator = torch.Generator().manual_seed(0)
    visible = torch.ones(TOKENS)
    drawn = set()
    for keep in (14, 10, 7, 5, 5):
        visible = visible * sample_keep(scores, visible, keep, PROTECTED, temperature, generator)
        assert visible.round().sum().item() == keep
        assert visible[:2].tolist() == [1, 1]
        assert visible[-3:].tolist() == [1, 1, 1]
        drawn.add(tuple(visible.round().tolist()))
    assert len(drawn) == 4


def test_without_noise_it_is_top_k(scores):
    drawn = sample_keep(scores, torch.ones(TOKENS), 10, PROTECTED, 0.5, None)
    inner = scores[2:-3].argsort(descending=True)[:5] + 2
    assert set(drawn.round().nonzero()[:, 0].tolist()) == {0, 1, 17, 18, 19, *inner.tolist()}


def test_each_row_of_a_batch_is_drawn_by_itself(scores):
    batch = torch.stack([scores.detach(), scores.detach().flip(0)])
    visible = torch.ones(2, TOKENS)
    visible[1, 7] = 0
    together = sample_keep(batch, visible, 10, PROTECTED, 0.5, None)
    alone = [sample_keep(batch[row], visible[row], 10, PROTECTED, 0.5, None) for row in range(2)]
    assert torch.equal(together, torch.stack(alone))
    assert together[1, 7].item() == 0


def test_noise_explores(scores):
    generator = torch.Generator().manual_seed(0)
    drawn = {
        tuple(sample_keep(scores, torch.ones(TOKENS), 10, PROTECTED, 1.0, generator).round().tolist())
        for _ in range(20)
    }
    assert len(drawn) > 10


def test_noise_is_added_before_the_temperature_divides():
    """As in the Gumbel-softmax of Jang et al. (2017), the hard sample is the same at every temperature."""
    scores = torch.tensor([1.5, 0.0]).expand(20_000, 2)
    visible = torch.ones_like(scores)
    drawn = [
        sample_keep(
            scores, visible, 1, Protected(0, 0), temperature, torch.Generator().manual_seed(0)
        ).round()
        for temperature in (0.1, 0.5, 2.0)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    # P(a + X > Y) of two logistic X, Y: e^a (e^a - 1 - a) / (e^a - 1)^2
    odds = math.exp(1.5)
    assert drawn[0][:, 0].mean().item() == pytest.approx(odds * (odds - 2.5) / (odds - 1) ** 2, abs=0.01)


def test_gradient_of_a_noisy_draw_is_that_of_the_soft_mask(scores):
    temperature = 0.5
    sample_keep(
        scores, torch.ones(TOKENS), 10, PROTECTED, temperature, torch.Generator().manual_seed(1)
    ).sum().backward()
    noise = torch.rand(TOKENS, generator=torch.Generator().manual_seed(1)).logit()
    noisy = scores.detach() + noise
    ordered = noisy[2:-3].sort(descending=True).values
    probability = torch.sigmoid((noisy - (ordered[4] + ordered[5]) / 2) / temperature)
    expected = probability * (1 - probability) / temperature
    expected[:2] = 0
    expected[-3:] = 0
    torch.testing.assert_close(scores.grad, expected)


def test_gradient_is_that_of_the_soft_mask(scores):
    temperature = 0.5
    drawn = sample_keep(scores, torch.ones(TOKENS), 10, PROTECTED, temperature, None)
    drawn.sum().backward()
    ordered = scores.detach()[2:-3].sort(descending=True).values
    probability = torch.sigmoid((scores.detach() - (ordered[4] + ordered[5]) / 2) / temperature)
    expected = probability * (1 - probability) / temperature
    expected[:2] = 0
    expected[-3:] = 0
    torch.testing.assert_close(scores.grad, expected)


def test_attention_mask_by_hand():
    mask = attention_mask(torch.tensor([[1.0, 0.0, 1.0]]), torch.float32)[0, 0]
    seen = torch.softmax(mask, -1)
    torch.testing.assert_close(seen[0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(seen[1], torch.tensor([0.5, 0.5, 0.0]))  # dropped, sees itself
    torch.testing.assert_close(seen[2], torch.tensor([0.5, 0.0, 0.5]))


def test_dropped_tokens_get_the_gradient_of_the_product_form():
    """Softmax with weights: exp(a_j) * v_j / sum, as DynamicViT writes it."""
    logits = torch.tensor([[0.3, -1.0, 0.7]])
    values = torch.tensor([1.0, -2.0, 5.0])

    def gradient(attend):
        visible = torch.tensor([1.0, 0.0, 1.0], requires_grad=True)
        (attend(visible) @ values).sum().backward()
        return visible.grad[:2]

    def additive(visible):
        return torch.softmax(logits + attention_mask(visible[None], torch.float32)[0, 0, 2], -1)

    def product(visible):
        weights = logits.exp() * torch.cat([visible[:2], torch.ones(1)])
        return weights / weights.sum()

    expected = gradient(product)
    assert (expected != 0).all()
    torch.testing.assert_close(gradient(additive), expected)


def test_gradients_reach_every_stage(llama, ids):
    scores = torch.randn(3, 2, 60, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def keep(stage, states, visible):
        assert not states.requires_grad
        return sample_keep(scores[stage], visible, (40, 30, 20)[stage], PROTECTED, 0.5, None)

    masked = masked_forward(llama, torch.stack([ids, ids.flip(0)]), (1, 3, 4), keep)
    assert masked.living.sum(-1).tolist() == [[60, 60], [40, 40], [30, 30]]
    masked.hidden[:, -1].square().sum().backward()
    for stage in range(3):
        dead = ~masked.living[stage]
        assert (scores.grad[stage][dead] == 0).all()
        for row in range(2):
            dropped = masked.living[stage, row] & (masked.visible[row] < 0.5)
            assert (scores.grad[stage, row][dropped] != 0).any(), "dropped tokens can learn to come back"


@pytest.mark.parametrize("end", [None, 4])
def test_windows_of_a_batch_do_not_meet(lm, ids, end):
    scores = torch.randn(2, 2, 60, generator=torch.Generator().manual_seed(0))
    windows = torch.stack([ids, ids.flip(0)])

    def run(rows):
        def keep(stage, states, visible):
            return sample_keep(scores[stage, rows], visible, (40, 25)[stage], PROTECTED, 0.5, None)

        return masked_forward(lm, windows[rows], (1, 4), keep, end)

    both = run(slice(None))
    for row in range(2):
        alone = run(slice(row, row + 1))
        torch.testing.assert_close(both.hidden[row], alone.hidden[0])
        torch.testing.assert_close(both.states[1][row], alone.states[1][0])
        assert torch.equal(both.living[:, row], alone.living[:, 0])
    assert both.visible.round().sum(-1).tolist() == [25, 25]


def test_a_forward_can_end_early(llama, ids):
    def keep(stage, states, visible):
        return visible

    whole = masked_forward(llama, ids[None], (1, 3), keep)
    early = masked_forward(llama, ids[None], (1, 3), keep, 3)
    assert torch.equal(early.states[1], whole.states[1])
    assert torch.equal(early.hidden, early.states[1])
