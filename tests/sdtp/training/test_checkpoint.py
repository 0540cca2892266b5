"""A training that is killed at any time and resumed ends with the same weights as one that was not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ablations.core.artefact import open_artefact
from ablations.core.files import sha256_file
from ablations.core.panel import Panel
from ablations.sdtp.scores.pruner import PRUNER_FILE
from ablations.sdtp.train import train, train_pruners
from ablations.sdtp.training import checkpoint as checkpoint_module
from ablations.sdtp.training.checkpoint import Checkpoint
from ablations.sdtp.training.trainer import PrunerTrainer
from tests.sdtp.test_train import frozen, make_spec
from tests.sdtp.whole_jobs import panel_file, whole_job

__all__ = ["frozen"]

KILLABLE = """
from ablations.core.panel import main
from ablations.sdtp.train import train_pruners
from ablations.sdtp.training import checkpoint
from ablations.specs.sdtp.train import PrunerSpec

checkpoint.INTERVAL = 0.0
main("ablations.sdtp.train", PrunerSpec, train_pruners, "")
"""


# 16 steps of warm-up, then 32.
SPEC = make_spec(warmup_epochs=1, epochs=2)


class KilledError(Exception):
    pass


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.pruner.parameters()])


def kill_after(monkeypatch, steps):
    """Make the training die in the step after `steps`, when its last checkpoint was written."""
    step = PrunerTrainer.step

    def dying(trainer):
        if len(trainer.history) == steps:
            raise KilledError
        return step(trainer)

    monkeypatch.setattr(checkpoint_module, "INTERVAL", 0.0)
    monkeypatch.setattr(PrunerTrainer, "step", dying)


def test_sigkill_and_resume_give_the_same_file(workspace, capfd):
    whole, killed = (whole_job(workspace, "pruner", name, epochs=30) for name in ("whole", "killed"))
    train_pruners(Panel([whole]))
    out = killed.run.out
    checkpoint = workspace.folder / ".killed.checkpoint"
    panel = panel_file(workspace, "ablations.sdtp.train", [killed])
    job = subprocess.Popen([sys.executable, "-c", KILLABLE, "--panel", panel])
    try:
        deadline = time.monotonic() + 60
        while not checkpoint.exists():
            assert job.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        job.kill()
    assert job.wait() < 0
    assert not out.exists()
    capfd.readouterr()
    train_pruners(Panel([killed]))
    said = capfd.readouterr().err
    assert "training resumes after" in said
    assert 0 < int(said.split("resumes after ")[1].split()[0]) < 90
    assert sha256_file(out.with_name(PRUNER_FILE)) == sha256_file(whole.run.out.with_name(PRUNER_FILE))
    assert not checkpoint.exists()
    facts = [open_artefact(member.run.out)[1].facts for member in (whole, killed)]
    for name in ("losses", "ranking", "ranking_untrained"):
        assert facts[0][name] == facts[1][name]


@pytest.fixture(scope="module")
def whole(frozen, tmp_path_factory):
    trainer = PrunerTrainer(frozen[0], SPEC, frozen[1])
    train(trainer, Checkpoint(tmp_path_factory.mktemp("whole") / "checkpoint"))
    return trainer


@pytest.mark.parametrize("steps", [1, 16, 23, 47])
def test_resume_after_any_step(frozen, whole, tmp_path, monkeypatch, steps):
    lm, table = frozen
    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            train(PrunerTrainer(lm, SPEC, table), Checkpoint(path))
    resumed = PrunerTrainer(lm, SPEC, table)
    train(resumed, Checkpoint(path))
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history == whole.history


def test_a_resumed_training_counts_the_seconds_of_both_parts(frozen, tmp_path, monkeypatch):
    lm, table = frozen
    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        kill_after(patch, 47)
        with pytest.raises(KilledError):
            train(PrunerTrainer(lm, SPEC, table), Checkpoint(path))
    saved = Checkpoint(path).load()
    assert train(PrunerTrainer(lm, SPEC, table), Checkpoint(path)) > saved["seconds"] > 0


@pytest.mark.parametrize("damage", [b"", b"no", None])
def test_a_damaged_checkpoint_is_told_of_and_left_aside(frozen, tmp_path, monkeypatch, capsys, damage):
    lm, table = frozen
    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            train(PrunerTrainer(lm, make_spec(epochs=1), table), Checkpoint(path))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content) if damage is None else damage)
    resumed = PrunerTrainer(lm, make_spec(epochs=1), table)
    train(resumed, Checkpoint(path))
    message = capsys.readouterr().err
    assert f"{path}: damaged checkpoint; training starts anew" in message
    assert "resumes" not in message
    whole = PrunerTrainer(lm, make_spec(epochs=1), table)
    train(whole, Checkpoint(tmp_path / "whole"))
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_of_another_kind_of_device_is_told_of_and_left_aside(frozen, tmp_path, capsys):
    lm, table = frozen
    donor, trainer = (PrunerTrainer(lm, make_spec(epochs=1), table) for _ in range(2))
    donor.step()
    before = weights(trainer)
    assert not trainer.load_state_dict(donor.state_dict() | {"device": "cuda"})
    assert trainer.history == []
    assert torch.equal(weights(trainer), before)
    assert "checkpoint is from a cuda device; training starts anew" in capsys.readouterr().err


def test_nothing_is_written_before_the_interval_is_over(tmp_path, monkeypatch):
    path: Path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    now = time.monotonic()
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now)
    checkpoint.save_if_due(lambda: {"x": 1})
    assert not path.exists()
    now += checkpoint_module.INTERVAL + 1
    checkpoint.save_if_due(lambda: {"x": 2})
    assert checkpoint.load() == {"x": 2}
    checkpoint.save_if_due(lambda: {"x": 3})
    assert checkpoint.load() == {"x": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
