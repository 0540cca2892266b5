import pytest
import torch

from ablations.core.errors import UserError
from ablations.sdtp.pruned.cost import saliency_flops
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.importance import Prompt
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.specs.sdtp.evaluate import PromptSaliency
from ablations.specs.sdtp.saliency import SaliencySpec

STATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
INDICES = torch.tensor([2, 5, 9])
PROMPT = Prompt(torch.arange(10), 0)


def scores(which, number=0, stage=0):
    return which.scorer(Prompt(torch.arange(10), number))(stage, STATES, INDICES)


def test_recent_is_the_place_in_the_prompt():
    assert scores(importance.recent()).argsort(descending=True).tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_norm_is_computed_in_float32(dtype):
    norms = importance.hidden_norm().scorer(PROMPT)(0, STATES.to(dtype), INDICES)
    assert norms.dtype == torch.float32
    assert norms.tolist() == [5, 1, 10]


def test_random_depends_on_seed_prompt_and_stage_alone():
    def draw(seed=0, number=0, stage=0):
        return tuple(scores(importance.random(seed), number=number, stage=stage).tolist())

    assert draw() == draw()
    assert len({draw(), draw(seed=1), draw(number=1), draw(stage=1)}) == 4


@pytest.mark.parametrize("distance", [False, True])
def test_learned_scores_are_the_pruner_s(distance):
    """Distances are those of the prompt of ten tokens: 8, 5 and 1."""
    pruner = Pruner(2, 4, 2, distance).requires_grad_(False)
    distances = torch.tensor([8, 5, 1])
    expected = pruner(1, STATES, distances if distance else None)
    assert torch.equal(scores(importance.learned(pruner), stage=1), expected)
    found = scores(importance.learned_distance(pruner), stage=1)
    torch.testing.assert_close(found, expected - 2 * torch.tensor([8.0, 5.0, 1.0]).log())


@pytest.mark.parametrize(("distance", "operations"), [(False, 4 * (2 + 2)), (True, 4 * (2 + 1 + 2))])
def test_learned_scores_cost_their_linear_layers(distance, operations):
    pruner = Pruner(2, 4, 2, distance)
    for which in (importance.learned(pruner), importance.learned_distance(pruner)):
        assert which.flops(10, (10, 7)) == 2 * operations * 17


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
    continuations, names = torch.full((windows,), continuation), ("text",) * windows
    return SaliencyTable(ids, saliency, torch.tensor(heldout), continuations, names, ("d",) * windows, spec)


def test_prior_by_hand():
    # Logarithms 0, 1, 2 standardise to -1.22, 0, 1.22; the held-out window and the last token are not used.
    row = torch.tensor([0.0, 1.0, 2.0, 50.0]).exp()
    saliency = torch.stack([row, row, row.flip(0)])[:, None]
    prior = importance.prior(table(saliency, [False, False, True], 1), torch.device("cpu"))
    curve = prior.scorer(Prompt(torch.arange(5), 0))(0, STATES, torch.arange(5))
    torch.testing.assert_close(curve, torch.linspace(-(1.5**0.5), 1.5**0.5, 5))


def test_prior_has_a_curve_per_stage_and_follows_the_indices():
    saliency = torch.rand(4, 2, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    prior = importance.prior(table(saliency, [False] * 4, 2), torch.device("cpu"))
    expected = regression_targets(saliency[..., :7], torch.ones(4, 2, 7, dtype=torch.bool), "norm").mean(0)
    # Of a prompt as long as the windows' own, nothing is interpolated.
    curve = prior.scorer(Prompt(torch.arange(7), 0))(1, STATES, torch.tensor([0, 4, 6]))
    torch.testing.assert_close(curve, expected[1, [0, 4, 6]])


def test_saliency_is_that_of_the_prompt(llama, ids):
    spec = PromptSaliency(measure="abs", loss_tokens=8)
    scorer = importance.saliency(llama, (1, 3), spec).scorer(Prompt(ids, 0))
    expected, _ = window_saliency(llama, ids, (1, 3), 8, "abs")
    for stage in (0, 1):
        assert torch.equal(scorer(stage, STATES, INDICES), expected[stage, INDICES])


def test_saliency_of_the_whole_prompts_loss(llama, ids):
    which = importance.saliency(llama, (1, 3), PromptSaliency(measure="abs", loss_tokens=None))
    for tokens in (20, 60):
        scorer = which.scorer(Prompt(ids[:tokens], 0))
        expected, _ = window_saliency(llama, ids[:tokens], (1, 3), tokens - 1, "abs")
        assert torch.equal(scorer(1, STATES, INDICES), expected[1, INDICES])
        assert which.flops(tokens, ()) == saliency_flops(llama, tokens, 1, tokens - 1)


def test_saliency_that_is_not_finite(llama, ids):
    llama.lm_head.weight[0, 0] = torch.nan
    which = importance.saliency(llama, (1, 3), PromptSaliency(measure="abs", loss_tokens=8))
    with pytest.raises(UserError, match=r"not finite; use compute\.dtype float32"):
        which.scorer(Prompt(ids, 0))


@pytest.mark.parametrize("measure", ["norm", "abs", "signed"])
def test_the_oracle_s_saliency_is_that_of_what_follows(llama, ids, measure):
    which = importance.oracle(llama, (1, 3), measure)
    scorer = which.scorer(Prompt(ids[:50], 0, ids[50:]))
    expected, _ = window_saliency(llama, ids, (1, 3), 10, measure)
    for stage in (0, 1):
        assert torch.equal(scorer(stage, STATES, INDICES), expected[stage, INDICES])
    other = which.scorer(Prompt(ids[:50], 0, ids[50:].flip(0)))
    assert not torch.allclose(other(0, STATES, INDICES), expected[0, INDICES], rtol=1e-2)
    assert which.flops(50, (50, 30)) == 0


@pytest.mark.parametrize(("measure", "row"), [("norm", 1), ("abs", 0), ("signed", 0)])
def test_the_oracle_at_the_last_layer(llama, ids, measure, row):
    """Where it has no saliency of its own, it goes by that of the stage before."""
    scorer = importance.oracle(llama, (3, 5), measure).scorer(Prompt(ids[:50], 0, ids[50:]))
    expected, _ = window_saliency(llama, ids, (3, 5), 10, measure)
    assert torch.equal(scorer(1, STATES, INDICES), expected[row, INDICES])
