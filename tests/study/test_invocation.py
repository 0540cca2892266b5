"""Command lines of Snakemake: what they ask for; submitted jobs run only while they are still planned."""

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
)


@dataclass(frozen=True)
class StandIn:
    """A job as far as these tests need one."""

    digest: str
    path: Path


JOBS = [StandIn("a1", Path("results/record/a1.json")), StandIn("b2", Path("results/sweep/b2.json"))]


@pytest.mark.parametrize(
    "word", ["results/record/a1.json", "./results/record/a1.json", "{here}/results/record/a1.json"]
)
def test_a_finished_result_is_found_by_any_of_its_paths(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = word.format(here=tmp_path)
    command = ["snakemake", "--cores", "1", "", "results/sweep/b2.json", word, word]
    assert list(named_results(command, JOBS, {"a1"})) == [(word, "results/record/a1.json")]


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


def test_a_job_that_is_no_longer_planned_is_refused():
    plan = SimpleNamespace(jobs={"0123456789abcdef": None})
    require_planned(plan, ["snakemake", "--target-jobs", "decode:digest=0123456789abcdef", "--force"])
    with pytest.raises(UserError, match=r"^results/spec/1123456789abcdef.json: the code or constraints"):
        require_planned(plan, ["--target-jobs", "decode:digest=1123456789abcdef"])
