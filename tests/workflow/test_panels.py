"""Panels through real Snakemake: what is missing is measured side by side, and what is finished stays."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.workflow.conftest import TINY, Checkout

NO_PROFILE = ("--workflow-profile", "none")
DYING = """
import os, signal, sys
def watch(event, arguments):
    # What atomic writing does first: it makes the folder.
    if event == "os.mkdir" and os.environ["DIES_AT"] in os.path.basename(os.fsdecode(arguments[0])):
        os.kill(os.getpid(), int(os.environ["DIES_OF"]))
if "DIES_AT" in os.environ:
    sys.addaudithook(watch)
"""


@pytest.fixture
def dying(tmp_path, monkeypatch):
    """A function after which whatever process writes to a folder of this name is killed; None ends it."""
    (tmp_path / "dying").mkdir()
    (tmp_path / "dying/sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "dying"))
    monkeypatch.setenv("DIES_OF", str(int(signal.SIGKILL)))

    def dies(folder: Path | None) -> None:
        if folder is None:
            monkeypatch.delenv("DIES_AT")
        else:
            monkeypatch.setenv("DIES_AT", folder.name)

    return dies


def measuring(study: Checkout, *targets: str) -> list[str]:
    """Messages of the jobs that would measure or train now."""
    done = study.snakemake("-n", *targets)
    assert done.code == 0, done.output
    output = re.sub(r", about \d+ min\b", "", done.output)
    jobs = "Evaluating|Decoding|Replaying|Training"
    return sorted(re.findall(rf"^Job \d+: ((?:{jobs}) .*)$", output, re.MULTILINE))


def quality(record: Path) -> list[tuple]:
    return [(row["document"], row["nll"], row["kl"]) for row in json.loads(record.read_text())["samples"]]


def pruners(study: Checkout, experiment: str) -> list[Path]:
    """Folders of the pruners that an experiment was measured with."""
    series = [study.inputs(record)["text"] for record in study.records_of(experiment)]
    return [study.inputs(folder)["pruner"].parent for folder in series]


def test_a_dry_run_says_which_experiments_lack_how_many_blocks(study):
    study.forget("A7", "A9", "F4")
    shutil.rmtree(study.series("C1")["prefill"])
    study.record("C1").unlink()
    assert measuring(study, "paper/ablation.tex") == [
        "Decoding 3 blocks side by side: F4 (3) (DynaTree)",
        "Evaluating 7 blocks side by side: A7 (3), A9 (3), C1 (1) (SDTP)",
        "Replaying 3 blocks side by side: F4 (3) (DynaTree)",
    ]
    assert measuring(study, "A7") == ["Evaluating 3 blocks side by side: A7 (3) (SDTP)"]
    assert measuring(study, "A9", "A7") == ["Evaluating 6 blocks side by side: A9 (3), A7 (3) (SDTP)"]
    assert measuring(study, "A6") == []


def test_one_experiment_is_measured_alone(study):
    kept = study.forget("A7", "A9")
    blocks = study.blocks()
    done = study.snakemake("A7")
    assert done.code == 0, done.output
    assert study.record("A7").exists()
    assert study.records().keys() == {*kept, study.record("A7").name}
    assert kept.items() <= study.records().items()
    assert {Path(name).parent.name for name in study.blocks().keys() - blocks.keys()} == {
        folder.name for folder in study.series("A7").values()
    }
    assert measuring(study, "paper/ablation.tex") == ["Evaluating 3 blocks side by side: A9 (3) (SDTP)"]


def test_more_documents_measure_the_new_ones_alone_and_fewer_none(study):
    old, blocks = quality(study.record("A7")), study.blocks()
    names = {study.record(name).name for name in ("F1", "F4")}
    study.replace(TINY, "timing: {documents: 2,", "timing: {documents: 3,")
    study.replace(TINY, "    documents: 6\n    prompt_tokens", "    documents: 7\n    prompt_tokens")
    study.replace(TINY, "code: {count: 3}", "code: {count: 4}")
    study.replace(TINY, "new_tokens: 12, timed: 2}", "new_tokens: 12, timed: 3}")
    # Of each kind one more prompt is timed, and of code one more replayed of what drafts.
    assert measuring(study, "A7", "F1", "F4") == [
        "Decoding 6 blocks side by side: F1 (3), F4 (3) (DynaTree)",
        "Evaluating 2 blocks side by side: A7 (2) (SDTP)",
        "Replaying 1 block side by side: F4 (1) (DynaTree)",
    ]
    for experiment in ("A7", "F1", "F4"):
        study.record(experiment).unlink()
    done = study.snakemake("A7", "F1", "F4")
    assert done.code == 0, done.output
    new = json.loads(study.record("A7").read_text())
    assert quality(study.record("A7"))[:6] == old
    assert [len(row["pairs"]) >= 2 for row in new["samples"]] == 3 * [True] + 4 * [False]
    assert blocks.items() <= study.blocks().items()
    added = [Path(path) for path in study.blocks().keys() - blocks.keys()]
    assert sorted(path.name for path in added if path.suffix == ".json") == [
        *7 * ["2-3.json"],
        "3-4.json",
        "6-7.json",
    ]
    decoded = json.loads(study.record("F4").read_text())
    assert (len(decoded["samples"]), len(decoded["totals"]["replays"])) == (3 * 3, 4 + 3 + 3)
    # Of as few as before, the records alone are missing.
    study.replace(TINY, "code: {count: 4}", "code: {count: 3}")
    study.replace(TINY, "new_tokens: 12, timed: 3}", "new_tokens: 12, timed: 2}")
    assert measuring(study, "F1", "F4") == []
    assert study.snakemake("F1", "F4").code == 0
    assert names <= study.records().keys()


@pytest.mark.parametrize("settings", ["experiments: 1", "documents: 4"])
def test_how_work_is_shared_out_is_no_part_of_a_result(study, settings):
    before = {name: quality(study.record(name)) for name in ("A7", "A9")}
    names = {study.record(name).name for name in before}
    kept = study.forget(*before)
    with (study.path / TINY).open("a") as overlay:
        overlay.write(f"panel: {{{settings}}}\n")
    done = study.snakemake(*before)
    assert done.code == 0, done.output
    assert kept.keys() | names == study.records().keys()
    assert {name: quality(study.record(name)) for name in before} == before
    panels = re.findall(r"^Job \d+: Evaluating (.*) \(SDTP\)$", done.output, re.MULTILINE)
    assert len(panels) == (2 if settings == "experiments: 1" else 1)


def test_a_lost_block_is_measured_again_alone_and_force_measures_nothing_else(study):
    old, lost = quality(study.record("A7")), next(study.series("A7")["text"].glob("*.json"))
    study.record("A7").unlink()
    # Bulky rows belong to their block.
    for path in lost.parent.glob(f"{lost.stem}.*"):
        path.unlink()
    blocks = study.blocks()
    assert measuring(study, "A7") == ["Evaluating 1 block side by side: A7 (1) (SDTP)"]
    done = study.snakemake("A7", flags=(*NO_PROFILE, "--forceall"))
    assert done.code == 0, done.output
    assert lost.exists()
    assert quality(study.record("A7")) == old
    assert blocks.items() <= study.blocks().items()
    before = study.blocks()
    assert study.snakemake("A7", flags=(*NO_PROFILE, "--forceall")).code == 0
    assert study.blocks() == before


@pytest.mark.full
def test_an_experiment_that_takes_the_process_down_is_named_and_the_others_are_measured(study, dying):
    dying(study.series("A9")["text"])
    study.forget("A7", "A9", "M2")
    blocks = study.blocks()
    done = study.snakemake("--keep-going", "A7", "A9", "M2")
    assert done.code != 0
    assert "A9 took its process down (signal SIGKILL); the others go on without it" in done.output
    assert "A9 took its process down (signal SIGKILL), alone too" in done.output
    # Its other blocks are there, too: one of its three series fails.
    assert len({Path(name).parent for name in study.blocks().keys() - blocks.keys()}) == 3 + 2 + 2
    dying(None)
    assert measuring(study, "A7", "A9", "M2") == ["Evaluating 1 block side by side: A9 (1) (SDTP)"]
    kept = study.blocks()
    done = study.snakemake("A7", "A9", "M2")
    assert done.code == 0, done.output
    assert kept.items() <= study.blocks().items()
    assert all(study.record(name).exists() for name in ("A7", "A9", "M2"))


@pytest.mark.full
def test_a_training_that_fails_costs_its_experiments_alone(study, dying):
    (fails,), others = pruners(study, "A3b"), pruners(study, "A5")
    study.forget("A5", "A3b", "M2")
    for folder in (fails, *others):
        shutil.rmtree(folder)
    assert "Training A3b, A5" in measuring(study, "A3b", "A5", "M2")
    dying(fails)
    done = study.snakemake("--keep-going", "A3b", "A5", "M2")
    assert done.code != 0
    assert re.search(r"^error: not measured: A3b\. ", done.output, re.MULTILINE)
    assert len(study.records_of("A5")) == len(others) == 2
    assert study.record("M2").exists()
    dying(None)
    assert measuring(study, "A3b", "A5", "M2") == [
        "Evaluating 2 blocks side by side: A3b (2) (SDTP)",
        "Training A3b",
    ]
    done = study.snakemake("A3b", "A5", "M2")
    assert done.code == 0, done.output


@contextmanager
def submitted(study: Checkout, *targets: str) -> Iterator[list[str]]:
    """The command of a panel's job as an executor runs it later, planned now with a dry run."""
    before = {*(study.path / "results/panel").glob("*.json")}
    done = study.snakemake("-n", *targets)
    assert done.code == 0, done.output
    (panel,) = {*(study.path / "results/panel").glob("*.json")} - before
    command = [sys.executable, "-m", "snakemake", "--mode", "remote", "--cores", "1", "--force", "--nolock"]
    command += ["--allowed-rules", "evaluate_sdtp", "--target-jobs", f"evaluate_sdtp:panel={panel.stem}"]
    yield [*command, "--configfile", TINY]


def test_a_panel_that_a_scheduler_starts_later_does_what_was_planned(study):
    old = {name: quality(study.record(name)) for name in ("A7", "A9")}
    study.forget("A7", "A9")
    # Of one of the two there is something by the time it starts, and the other one is edited.
    planned_with = max((study.path / "results/config").glob("*.json"), key=lambda path: path.stat().st_mtime)
    with submitted(study, "A7", "A9") as command:
        assert study.snakemake("A9").code == 0
        there = study.blocks()
        study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
        study.replace(TINY, "    documents: 6\n    prompt_tokens", "    documents: 7\n    prompt_tokens")
        study.planned()
        done = subprocess.run(
            command,
            cwd=study.path,
            env={**os.environ, "ABLATIONS_CONFIG": str(planned_with)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert there.items() <= study.blocks().items()
    new = {Path(name) for name in study.blocks().keys() - there.keys()}
    assert len({path.parent for path in new}) == 3
    assert {path.name for path in new if path.suffix == ".json"} == {"0-6.json", "0-4.json", "0-2.json"}
    # Edited back, what it measured is all that is needed.
    study.replace("config.yaml", "schedule: {keep_ratio: 0.55}", "schedule: {keep_ratio: 0.5}")
    study.replace(TINY, "    documents: 7\n    prompt_tokens", "    documents: 6\n    prompt_tokens")
    assert measuring(study, "A7", "A9") == []
    assert study.snakemake("A7", "A9").code == 0
    assert {name: quality(study.record(name)) for name in old} == old
