"""The last words of a run: what is decided, where things are, what is open; or what was not measured."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.study import endings
from ablations.study.planning.stages import COLLECT_STAMP, SECTION, SUMMARY

RECORDS = [Path("results/record/a.json"), Path("results/record/b.json")]


@pytest.fixture(autouse=True)
def asked(tmp_path, monkeypatch):
    """Who else says something prints his name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(endings, "_ask", lambda module, *arguments: print(module))


def plan():
    jobs = [SimpleNamespace(path=path) for path in RECORDS]
    rows = [SimpleNamespace(experiment=SimpleNamespace(id=job.path.stem.upper()), jobs=[job]) for job in jobs]
    return SimpleNamespace(records=RECORDS, rows=rows, config=SimpleNamespace(study="mine"))


def write(*paths, moment):
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (moment, moment))


def said(capsys):
    endings.say_where(plan())
    return capsys.readouterr().out


def test_a_finished_study_begins_with_what_is_decided_and_ends_with_what_is_open(capsys):
    write(*RECORDS, COLLECT_STAMP, moment=1)
    write(SUMMARY, SECTION, moment=2)
    first, *where, last = said(capsys).split("\n")[1:-1]
    assert (first, last) == ("ablations.paper.findings", "ablations.study.prospects")
    assert where == [
        "2 of 2 records of study 'mine' are in results/record (`python -m ablations.study show` lists them).",
        "The section is paper/ablation.tex, its tables and figures lie beside it.",
    ]


@pytest.mark.parametrize("newer", [RECORDS[0], COLLECT_STAMP])
def test_of_a_summary_that_is_older_than_what_it_sums_up_nothing_is_said(capsys, newer):
    write(*RECORDS, COLLECT_STAMP, moment=1)
    write(SUMMARY, SECTION, moment=2)
    write(newer, moment=3)
    assert "ablations." not in said(capsys).replace("-m ablations.study show", "")


def test_a_part_of_a_study_says_what_writes_the_section(capsys):
    assert said(capsys) == ""
    write(RECORDS[0], moment=1)
    assert said(capsys).splitlines()[1:] == [
        "1 of 2 records of study 'mine' are in results/record (`python -m ablations.study show` lists them).",
        "`snakemake --cores 1 paper/ablation.tex` writes the section.",
    ]


def test_what_was_not_measured_is_named(capsys):
    write(RECORDS[1], moment=1)
    endings.report_missing(plan())
    assert capsys.readouterr().err.startswith("error: not measured: A. The paper leaves no experiment out")
    write(RECORDS[0], moment=1)
    endings.report_missing(plan())
    assert capsys.readouterr().err == ""
