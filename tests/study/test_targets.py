"""What a command line of Snakemake asks for."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ablations.study.errors import UserError
from ablations.study.planning.targets import forces, named_results, reports, require_own_paths


@dataclass(frozen=True)
class Named:
    """What is asked of a job here."""

    digest: str
    path: Path


JOBS = [Named("a1", Path("results/record/a1.json")), Named("b2", Path("results/sweep/b2.json"))]


@pytest.mark.parametrize(
    "word", ["results/record/a1.json", "./results/record/a1.json", "{here}/results/record/a1.json"]
)
def test_a_finished_result_is_found_by_any_of_its_paths(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = word.format(here=tmp_path)
    command = ["snakemake", "--cores", "1", "", "results/sweep/b2.json", word, word]
    assert list(named_results(command, JOBS, {"a1"})) == [(word, "results/record/a1.json")]


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("--report report.html paper/ablation.tex", True),
        ("--report=report.html", True),
        # It runs jobs first.
        ("--report report.html --report-after-run paper/ablation.tex", False),
        ("report", False),
    ],
)
def test_a_report_is_told_from_a_run(command, asked):
    assert reports(command.split()) == asked


@pytest.mark.parametrize(
    "command", ["-F A7", "--force A7", "-R decode", "--forcerun=decode", "--forceall", "-f x"]
)
def test_whatever_forces_is_noticed(command):
    assert forces(["snakemake", *command.split()])
    assert not forces(["snakemake", "--cores", "1", "A7", "--until", "decode"])


def test_a_module_that_is_moved_is_refused():
    require_own_paths(str)
    with pytest.raises(UserError, match=r"^prefix: the files of this module keep their paths"):
        require_own_paths(lambda path: f"sub/{path}")
