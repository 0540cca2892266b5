"""Command lines of Snakemake: what they ask for; submitted jobs run only while they are still planned."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.core.errors import UserError
from ablations.study.invocation import (
    asks_for_report,
    forces_jobs,
    named_results,
    require_planned,
    require_unmoved_paths,
    require_writable,
)
from ablations.study.planning.stages import JOIN, SWEEP, TRAIN_PRUNER, Stage


@dataclass(frozen=True)
class StandIn:
    """A job as far as these tests need one."""

    digest: str
    path: Path
    stage: Stage


JOBS = [
    StandIn(digest, Path(stage.result.format(digest=digest)), stage)
    for digest, stage in {"a1": JOIN, "b2": SWEEP, "c3": TRAIN_PRUNER}.items()
]


@pytest.mark.parametrize(
    "word", ["results/record/a1.json", "./results/record/a1.json", "{here}/results/record/a1.json"]
)
def test_a_finished_result_is_found_by_any_of_its_paths(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = word.format(here=tmp_path)
    command = ["snakemake", "--cores", "1", "", "results/sweep/b2.json", word, word]
    assert list(named_results(command, JOBS, {"a1"})) == [(word, JOBS[0])]


def test_a_result_that_no_rule_makes_at_its_path_is_found_before_it_is_finished():
    command = ["snakemake", "results/sweep/b2.json", "results/pruner/c3/manifest.json"]
    assert list(named_results(command, JOBS, set())) == [(command[-1], JOBS[2])]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--report report.html paper/ablation.tex", True),
        ("--report=report.html", True),
        # It runs jobs first.
        ("--report report.html --report-after-run paper/ablation.tex", False),
        ("report", False),
    ],
)
def test_a_report_is_told_from_a_run(command, expected):
    assert asks_for_report(command.split()) == expected


@pytest.mark.parametrize(
    "command", ["-F A7", "--force A7", "-R decode", "--forcerun=decode", "--forceall", "-f x"]
)
def test_every_option_that_forces_jobs_is_noticed(command):
    assert forces_jobs(["snakemake", *command.split()])
    assert not forces_jobs(["snakemake", "--cores", "1", "A7", "--until", "decode"])


def test_a_module_that_is_moved_is_refused():
    require_unmoved_paths(str)
    with pytest.raises(UserError, match=r"^prefix: the files of this module keep their paths"):
        require_unmoved_paths(lambda path: f"sub/{path}")


def refuse(digest):
    raise UserError(f"results/panel/{digest}.json: no such panel")


def test_a_job_that_is_no_longer_planned_is_refused():
    plan = SimpleNamespace(jobs={"0123456789abcdef": None}, panel=refuse)
    require_planned(plan, ["snakemake", "--target-jobs", "join_record:digest=0123456789abcdef", "--force"])
    with pytest.raises(UserError, match=r"^results/spec/1123456789abcdef.json: the code or constraints"):
        require_planned(plan, ["--target-jobs", "join_record:digest=1123456789abcdef"])


def test_a_panel_that_is_no_longer_planned_is_refused():
    command = ["snakemake", "--target-jobs", "decode:panel=0123456789abcdef"]
    asked = []
    require_planned(SimpleNamespace(jobs={}, panel=asked.append), command)
    assert asked == ["0123456789abcdef"]
    with pytest.raises(UserError, match=r"^results/panel/0123456789abcdef.json: no such panel"):
        require_planned(SimpleNamespace(jobs={}, panel=refuse), command)


@pytest.mark.parametrize(
    ("path", "series", "asked"),
    [
        ("block/abc", True, ["block/abc"]),
        ("block/new", True, ["block"]),
        ("record/abc.json", False, ["."]),
        ("block/abc", None, []),
    ],
)
def test_what_is_missing_is_written_to_its_folder(tmp_path, monkeypatch, path, series, asked):
    """Blocks to the folder of their series, other results beside their name; nothing where all is done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block/abc").mkdir(parents=True)
    job = SimpleNamespace(path=Path(path), done=series is None, stage=SimpleNamespace(has_blocks=series))
    found = []
    monkeypatch.setattr(os, "access", lambda folder, mode: found.append(str(folder)) or mode == os.W_OK)
    require_writable([job])
    assert found == asked
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    with pytest.raises(UserError, match="cannot be written to") if asked else nullcontext():
        require_writable([job])
