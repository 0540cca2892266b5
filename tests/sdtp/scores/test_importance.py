import pytest
import torch

from ablations.core.errors import UserError
from ablations.sdtp.pruned.cost import saliency_flops
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.specs.sdtp.evaluate import PromptSaliency
from ablations.specs.sdtp.saliency import SaliencySpec

STATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
INDICES = torch.tensor([2, 5, 9])


def scores(which, number=0, stage=0):
    return which.scorer(torch.arange(10), number)(stage, STATES, INDICES)


def test_recent_is_the_place_in_the_prompt():
    assert scores(importance.recent()).argsort(descending=True).tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_norm_is_computed_in_float32(dtype):
    norms = importance.hidden_norm().scorer(torch.arange(10), 0)(0, STATES.to(dtype), INDICES)
    assert norms.dtype == torch.float32
    assert norms.tolist() == [5, 1, 10]


def test_random_depends_on_seed_prompt_and_stage_alone():
    def draw(seed=0, number=0, stage=0):
        return tuple(scores(importance.random(seed), number=number, stage=stage).tolist())

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(number=1), draw(stage=1)}) == 4


def table(saliency, heldout, continuation):
    windows, stages, tokens = saliency.shape
    spec = SaliencySpec(
        layers=tuple(range(stages)),
        target={"measure": "norm", "loss": "continuation"},
        documents=windows,
        heldout_documents=1,
        tokens=tokens,
        continuation_tokens=continuation,
        compute={"dtype": "float32", "threads": 1},
    )
    ids = torch.zeros(windows, tokens, dtype=torch.int64)
    return SaliencyTable(ids, saliency, torch.tensor(heldout), ("d",) * windows, spec)


def test_prior_by_hand():
    # Logarithms 0, 1, 2 standardise to -1.22, 0, 1.22; the held-out window and the last token are not used.
    row = torch.tensor([0.0, 1.0, 2.0, 50.0]).exp()
    saliency = torch.stack([row, row, row.flip(0)])[:, None]
    prior = importance.prior(table(saliency, [False, False, True], 1), torch.device("cpu"))
    curve = prior.scorer(torch.arange(5), 0)(0, STATES, torch.arange(5))
    torch.testing.assert_close(curve, torch.linspace(-(1.5**0.5), 1.5**0.5, 5))


def test_prior_has_a_curve_per_stage_and_follows_the_indices():
    saliency = torch.rand(4, 2, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    prior = importance.prior(table(saliency, [False] * 4, 2), torch.device("cpu"))
    expected = regression_targets(saliency[..., :7], torch.ones(4, 2, 7, dtype=torch.bool), "norm").mean(0)
    # Of a prompt as long as the windows' own, nothing is interpolated.
    curve = prior.scorer(torch.arange(7), 0)(1, STATES, torch.tensor([0, 4, 6]))
    torch.testing.assert_close(curve, expected[1, [0, 4, 6]])


def test_saliency_is_that_of_the_prompt(llama, ids):
    spec = PromptSaliency(measure="abs", loss_tokens=8)
    scorer = importance.saliency(llama, (1, 3), spec).scorer(ids, 0)
    expected, _ = window_saliency(llama, ids, (1, 3), 8, "abs")
    for stage in (0, 1):
        assert torch.equal(scorer(stage, STATES, INDICES), expected[stage, INDICES])


def test_saliency_of_the_whole_prompts_loss(llama, ids):
    which = importance.saliency(llama, (1, 3), PromptSaliency(measure="abs", loss_tokens=None))
    for tokens in (20, 60):
        scorer = which.scorer(ids[:tokens], 0)
        expected, _ = window_saliency(llama, ids[:tokens], (1, 3), tokens - 1, "abs")
        assert torch.equal(scorer(1, STATES, INDICES), expected[1, INDICES])
        assert which.flops(tokens, ()) == saliency_flops(llama, tokens, 1, tokens - 1)


def test_saliency_that_is_not_finite(llama, ids):
    llama.lm_head.weight[0, 0] = torch.nan
    which = importance.saliency(llama, (1, 3), PromptSaliency(measure="abs", loss_tokens=8))
    with pytest.raises(UserError, match=r"not finite; use compute\.dtype float32"):
        which.scorer(ids, 0)
