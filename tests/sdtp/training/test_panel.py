"""Trainings of one panel share what they can, and each gives what it gives alone, to the bit."""

import json
import time

import pytest

from ablations.core.artefact import open_artefact
from ablations.core.files import sha256_file
from ablations.core.panel import Panel
from ablations.lm.layered import LayeredLM
from ablations.sdtp import train as train_module
from ablations.sdtp.scores.pruner import PRUNER_FILE
from ablations.sdtp.train import train_pruners
from tests.sdtp.whole_jobs import whole_job

RANKING = {"losses": {"lm": 0.0, "mse": 0.0, "ranking": 1.0}}
WARM = {"warmup_epochs": 2}
# Name of each training, the table that it learns from, and how it differs.
TRAININGS = {
    "plain": ("saliency", WARM),
    "ranking": ("saliency", WARM | RANKING),
    "seed": ("saliency", WARM | {"seed": 5}),
    "one-layer": ("saliency", WARM | {"layers": [3], "keep_ratios": [0.5]}),
    "cold": ("saliency", {}),
    "signed": ("saliency-signed", WARM | {"keep_ratios": [0.8, 0.6]}),
    "longer": ("saliency-longer", WARM),
}


@pytest.fixture(scope="module")
def tables(workspace):
    workspace.run("saliency", "saliency-signed", target={"measure": "signed", "loss": "continuation"})
    workspace.run("saliency", "saliency-longer", tokens=70, continuation_tokens=10)


def jobs(workspace, prefix, names=tuple(TRAININGS), **change):
    return [
        whole_job(
            workspace,
            "pruner",
            f"{prefix}-{name}",
            {"saliency": TRAININGS[name][0]},
            **TRAININGS[name][1] | change,
        )
        for name in names
    ]


def results(members):
    """Hash of the weights, and all facts but the seconds."""
    found = []
    for member in members:
        _, manifest = open_artefact(member.run.out)
        facts = {name: value for name, value in manifest.facts.items() if name != "seconds"}
        found.append((sha256_file(member.run.out.with_name(PRUNER_FILE)), json.dumps(facts)))
    return found


@pytest.fixture
def calls(monkeypatch):
    """What was loaded, read and computed."""
    made = {"models": 0, "tables": [], "embedded": 0}
    load, read = train_module.load_model, train_module.read_saliency

    def embedded(*_) -> None:
        made["embedded"] += 1

    def load_model(*arguments) -> LayeredLM:
        made["models"] += 1
        lm = load(*arguments)
        lm.embedding.register_forward_hook(embedded)
        return lm

    def read_saliency(path, layers):
        made["tables"].append((path.parent.name, layers))
        return read(path, layers)

    monkeypatch.setattr(train_module, "load_model", load_model)
    monkeypatch.setattr(train_module, "read_saliency", read_saliency)
    return made


def test_each_training_gives_what_it_gives_alone(workspace, tables, calls):
    alone = jobs(workspace, "alone")
    for member in alone:
        train_pruners(Panel([member]))
    calls |= {"models": 0, "tables": [], "embedded": 0}
    together = jobs(workspace, "together")
    train_pruners(Panel(together))
    assert results(together) == results(alone)
    assert len({weights for weights, _ in results(together)}) == len(TRAININGS)
    assert calls["models"] == 1
    assert len(calls["tables"]) == len(set(calls["tables"])) == 4
    # Eight windows each: at both layers for five trainings, at one layer, and of the longer table.
    assert calls["embedded"] == 24
    assert not list(workspace.folder.glob(".*.checkpoint"))


def test_a_training_is_skipped_or_fails_alone(workspace, tables, calls, monkeypatch):
    there, fine = jobs(workspace, "some", ["plain", "seed"], warmup_epochs=0, epochs=1)
    (diverging,) = jobs(workspace, "diverging", ["plain"], learning_rate=1e30)
    (lost,) = jobs(workspace, "lost", ["signed"])
    monkeypatch.setitem(lost.run.job.inputs, "saliency", str(workspace.folder / "nowhere" / "manifest.json"))
    train_pruners(Panel([there]))
    before = there.run.out.stat().st_mtime_ns
    train_pruners(Panel([there, lost, diverging, fine]))
    assert there.run.out.stat().st_mtime_ns == before
    assert "input 'saliency' is missing" in lost.failure
    assert "training diverged at step" in diverging.failure
    assert not diverging.run.out.parent.exists()
    assert fine.failure is None
    calls |= {"models": 0}
    train_pruners(Panel([there, fine]))
    assert calls["models"] == 0, "nothing is due"
    weights = there.run.out.with_name(PRUNER_FILE)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    train_pruners(Panel([there, fine]))
    assert calls["models"] == 1, "a damaged result is made again"
    assert weights.read_bytes() == whole


def test_the_seconds_are_those_of_each_training(workspace):
    start = time.perf_counter()
    members = jobs(workspace, "timed", ["plain", "seed"])
    train_pruners(Panel(members))
    total = time.perf_counter() - start
    manifests = [open_artefact(member.run.out)[1] for member in members]
    assert all(manifest.facts["seconds"] < manifest.seconds for manifest in manifests)
    assert sum(manifest.seconds for manifest in manifests) < total
