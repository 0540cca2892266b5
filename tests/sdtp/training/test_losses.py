import math

import pytest
import torch

from ablations.core.errors import UserError
from ablations.sdtp.scores.targets import regression_targets, standardise
from ablations.sdtp.training.losses import lm_loss, ranking_loss, require_finite_losses

STAGES, TOKENS = 3, 11


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(STAGES, TOKENS, generator=generator)
    targets = torch.rand(STAGES, TOKENS, generator=generator)
    targets[0, 3] = targets[0, 5]  # a tie
    living = torch.rand(STAGES, TOKENS, generator=generator) < 0.7
    return scores, targets, living


def alive(living, stage):
    return [i for i in range(TOKENS) if living[stage, i]]


def test_standardise_against_loops(case):
    _, targets, living = case
    standardised = standardise(targets, living)
    for stage in range(STAGES):
        values = [targets[stage, i].item() for i in alive(living, stage)]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        for i in range(TOKENS):
            expected = (targets[stage, i].item() - mean) / deviation if living[stage, i] else 0.0
            assert standardised[stage, i].item() == pytest.approx(expected, abs=1e-5)


def test_standardise_of_equal_values_is_zero():
    assert standardise(torch.full((1, 4), 3.0), torch.ones(1, 4, dtype=torch.bool)).tolist() == [[0.0] * 4]


def test_ranking_against_loops(case):
    scores, targets, _ = case
    losses = []
    for stage in range(STAGES):
        pairs = [
            math.log1p(math.exp(scores[stage, j] - scores[stage, i]))
            for i in range(TOKENS)
            for j in range(TOKENS)
            if targets[stage, i] > targets[stage, j]
        ]
        assert len(pairs) == TOKENS * (TOKENS - 1) / 2 - (stage == 0), "a tie is no pair"
        losses.append(sum(pairs) / len(pairs))
    assert ranking_loss(scores, targets).item() == pytest.approx(sum(losses) / STAGES, rel=1e-5)


def test_equal_saliency_orders_nothing():
    scores = torch.randn(5).requires_grad_()
    loss = ranking_loss(scores, torch.zeros(5))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, scores)[0].tolist() == [0] * 5


def test_lm_loss_is_next_token_nll():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    expected = -(math.log(3 / 4) + math.log(1 / 5)) / 2
    assert lm_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_an_error(value):
    with pytest.raises(UserError, match=r"step 7.*'mse'.*learning_rate"):
        require_finite_losses({"lm": 1.0, "mse": value}, 7)


@pytest.mark.parametrize("measure", ["abs", "norm"])
def test_targets_are_the_standardised_logarithm(measure):
    saliency = torch.tensor([[1.0, math.e, math.e**2, 0.0]])
    living = torch.tensor([[True, True, True, False]])
    expected = torch.tensor([[-1.0, 0.0, 1.0, 0.0]]) * math.sqrt(1.5)
    torch.testing.assert_close(regression_targets(saliency, living, measure), expected)
    assert regression_targets(saliency, ~living, measure).isfinite().all()


def test_signed_targets_keep_the_order_and_tame_both_tails():
    values = torch.cat([torch.linspace(-1, 1, 201), torch.tensor([1e4, -1e4])])
    saliency = values[torch.randperm(203, generator=torch.Generator().manual_seed(0))][None]
    living = torch.ones(1, 203, dtype=torch.bool)
    targets = regression_targets(saliency, living, "signed")
    assert torch.equal(targets.argsort(), saliency.argsort())
    assert targets.abs().max() < 8 < standardise(saliency, living).abs().max()
    torch.testing.assert_close(regression_targets(-saliency, living, "signed"), -targets)
    # The scale of a window's loss does not matter, nor does what is dead.
    torch.testing.assert_close(regression_targets(1e-5 * saliency, living, "signed"), targets)
    dead = torch.cat([living, torch.zeros(1, 5, dtype=torch.bool)], -1)
    longer = torch.cat([saliency, torch.full((1, 5), 3e6)], -1)
    torch.testing.assert_close(regression_targets(longer, dead, "signed")[:, :203], targets)
    assert regression_targets(saliency, ~living, "signed").isfinite().all()
    assert regression_targets(torch.zeros(1, 203), living, "signed").tolist() == [[0.0] * 203]


def test_a_batch_is_the_mean_of_its_windows(case):
    scores, targets, _ = case
    alone = [ranking_loss(scores[row], targets[row]).item() for row in range(STAGES)]
    assert ranking_loss(scores, targets).item() == pytest.approx(sum(alone) / STAGES, rel=1e-5)
