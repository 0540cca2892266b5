"""Scorers with and without a token's distance to the end of the prompt."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ablations.lm.packing import pack_module
from ablations.sdtp.scores.pruner import PRUNER_FILE, Pruner, load_pruner, save_pruner
from ablations.sdtp.training.trainer import untrained
from tests.sdtp.random_models import tiny_lm
from tests.sdtp.test_train import make_spec

HIDDEN, WIDTH, STAGES, TOKENS = 32, 8, 3, 40


@pytest.fixture
def states():
    return torch.randn(2, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0)) * 30


def seeded(**change) -> Pruner:
    torch.manual_seed(5)
    return Pruner(HIDDEN, WIDTH, STAGES, **change)


def test_a_scorer_is_a_small_network_of_normalised_states(states):
    pruner = seeded()
    torch.manual_seed(5)
    layers = [(nn.Linear(HIDDEN, WIDTH), nn.Linear(WIDTH, 2)) for _ in range(STAGES)]
    normalised = F.rms_norm(states, (HIDDEN,))
    for stage, (inner, outer) in enumerate(layers):
        outputs = outer(F.gelu(inner(normalised)))
        torch.testing.assert_close(pruner(stage, states), outputs[..., 0] - outputs[..., 1])


def test_without_distance_a_pruner_leaves_it_aside(states):
    pruner, indices = seeded(), torch.arange(TOKENS)
    assert torch.equal(pruner.of_prompt(TOKENS)(1, states, indices), pruner(1, states))
    assert set(pruner.scorers[0].state_dict()) == {"inner.weight", "inner.bias", "outer.weight", "outer.bias"}


def test_distance_is_one_more_input(states):
    pruner = seeded(distance=True)
    scorer = pruner.scorers[1]
    distances = torch.arange(TOKENS, 0, -1)
    feature = (distances.log() - 5.2).expand(2, -1)[..., None]
    inputs = torch.cat([F.rms_norm(states, (HIDDEN,)), feature], -1)
    weight = torch.cat([scorer.inner.weight, scorer.far.weight], 1)
    outputs = scorer.outer(F.gelu(F.linear(inputs, weight, scorer.inner.bias)))
    torch.testing.assert_close(pruner(1, states, distances), outputs[..., 0] - outputs[..., 1])


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_token_of_a_prompt_is_at_distance_one(states, packed):
    pruner = seeded(distance=True).requires_grad_(False)
    indices = torch.tensor([3, 17, TOKENS - 1])
    expected = pruner(2, states[:, indices], torch.tensor([TOKENS - 3, TOKENS - 17, 1]))
    if packed:
        pack_module(pruner)
    score = pruner.of_prompt(TOKENS)
    torch.testing.assert_close(score(2, states[:, indices], indices), expected)
    torch.testing.assert_close(
        pruner.of_stages([2]).of_prompt(TOKENS)(0, states[:, indices], indices), expected
    )
    longer = pruner.of_prompt(TOKENS + 10)(2, states[:, indices], indices)
    assert (longer != expected).all()


@pytest.mark.parametrize("distance", [False, True])
def test_a_file_says_whether_the_distance_is_needed(tmp_path, states, distance):
    spec = make_spec(distance=distance)
    pruner = untrained(tiny_lm("llama"), spec)
    path = tmp_path / PRUNER_FILE
    save_pruner(path, pruner, spec)
    loaded, loaded_spec = load_pruner(path, torch.device("cpu"))
    assert loaded_spec == spec
    assert loaded.distance == distance
    indices = torch.arange(TOKENS)
    for stage in range(STAGES):
        scores = [one.of_prompt(TOKENS)(stage, states, indices) for one in (pruner, loaded)]
        assert torch.equal(*scores)
