"""Logits that are NaN or infinite end an SDTP job with a line that names the data type."""

import pytest
import torch

from ablations.core.errors import UserError
from ablations.core.panel import Panel
from ablations.lm.finite import NOT_FINITE
from ablations.lm.layered import LayeredLM
from ablations.sdtp import evaluate, sweep
from ablations.sdtp.evaluation.retrieval import probe
from ablations.sdtp.pruned.continuation import log_probabilities, quality
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.prefill import prefill

MESSAGE = r"compute\.dtype: NaN or infinity in {}, computed in float32"


@pytest.fixture
def damaged(llama) -> LayeredLM:
    """A model with logits of minus infinity for one token; greedy tokens and most NLLs are unchanged."""
    llama.lm_head.weight.data[5] = -torch.inf * llama.lm_head.weight.data[5].sign()
    return llama


def damage(monkeypatch, module) -> None:
    """Put NaN into a weight of the job's checkpoint."""
    load = module.load_model

    def loaded(*arguments: object) -> LayeredLM:
        lm = load(*arguments)
        lm.lm_head.weight.data[65] = torch.nan
        return lm

    monkeypatch.setattr(module, "load_model", loaded)


def test_an_answer_is_not_judged_by_nan(damaged, ids):
    cache = damaged.new_cache(80)
    prefilled = prefill(damaged, ids, cache)
    with pytest.raises(UserError, match=MESSAGE.format("the logits after a retrieval prompt")):
        probe(damaged, prefilled, cache, ids[:4])


def test_a_divergence_that_is_infinite_is_an_error_although_the_nll_is_not(damaged):
    states = torch.randn(3, damaged.config.hidden_size, generator=torch.Generator().manual_seed(0))
    predicted = log_probabilities(damaged, states)
    result = quality(predicted, predicted, torch.tensor([1, 2, 3]))
    with pytest.raises(UserError, match=MESSAGE.format("the NLL of document 'd'")):
        result.require_finite("d", damaged.dtype)


def test_decoding_on_the_device_marks_what_is_no_token(damaged, ids):
    cache = damaged.new_cache(80)
    tokens = greedy_decode(damaged, prefill(damaged, ids, cache), cache, 4)
    assert NOT_FINITE in tokens.tolist()


def test_a_sweep_ends(workspace, monkeypatch):
    damage(monkeypatch, sweep)
    with pytest.raises(UserError, match=MESSAGE.format("the logits of the prompt")):
        workspace.run("sweep", "never.json")
    assert not (workspace.folder / "never.json").exists()


@pytest.mark.parametrize(
    ("measure", "what"),
    [("quality", "the NLL of document '.*'"), ("retrieval", "the logits after a retrieval prompt")],
)
def test_an_unpruned_model_of_nan_ends_the_whole_panel(workspace, monkeypatch, measure, what):
    damage(monkeypatch, evaluate)
    members = [workspace.member(measure, f"never-{number}", importance="recent") for number in (1, 2)]
    with pytest.raises(UserError, match=MESSAGE.format(what)):
        evaluate.evaluate(Panel(members))
    assert not any(member.failure or member.run.out.exists() for member in members)
