"""What is finished stays: whatever Snakemake is asked for, and whatever fails."""

import os
import re
import subprocess
import sys
import time

import pytest

from ablations.study.planning.stages import STAGES
from tests.workflow.conftest import TINY, Checkout

SECTION = "paper/ablation.tex"
NO_PROFILE = ("--workflow-profile", "none")
EVERY_TRIGGER = ("--rerun-triggers", "mtime", "params", "input", "code", "software-env")
MEASURED = (
    *("record", "block", "model", "text", "pruner", "sweep", "grid", "benchmark", "spec"),
    *("target_costs", "acceptance", "costs"),
)


def results(study: Checkout) -> dict[str, bytes]:
    """Everything that was measured or trained."""
    return {
        str(path.relative_to(study.path)): path.read_bytes()
        for kind in MEASURED
        for path in (study.path / "results" / kind).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "flags",
    [
        NO_PROFILE,
        (*NO_PROFILE, *EVERY_TRIGGER),
        EVERY_TRIGGER,
        (*NO_PROFILE, "--rerun-incomplete"),
        (*NO_PROFILE, "--forcerun", "decode", "evaluate_sdtp", "prepare_model"),
        (*NO_PROFILE, "--until", "decode"),
    ],
    ids=" ".join,
)
def test_a_finished_study_is_finished_whichever_way_snakemake_is_called(study, flags):
    done = study.snakemake("-n", SECTION, flags=flags)
    assert done.code == 0, done.output
    assert "Nothing to be done" in done.output, done.output


def test_the_rules_of_what_is_finished_keep_their_names(study):
    done = study.snakemake("--list")
    assert done.code == 0, done.output
    assert {stage.rule for stage in STAGES} <= {*done.output.split()}


@pytest.mark.parametrize(
    "flags",
    [("--forceall",), ("--force",), ("--delete-all-output",), ("--touch",), ("--keep-going", "-F")],
    ids=" ".join,
)
def test_nothing_that_was_measured_is_touched_where_all_is_forced_and_artefacts_are_gone(study, flags):
    for kind in ("model", "text", "pruner", "saliency"):
        for manifest in (study.path / "results" / kind).glob("*/manifest.json"):
            manifest.unlink()
    kept = results(study)
    done = study.snakemake("records", "A7", flags=(*NO_PROFILE, *flags))
    assert done.code == 0, done.output
    assert results(study) == kept
    assert ("note: a finished result is never measured again" in done.output) == (
        "orce" in str(flags) or "-F" in flags
    )


def test_a_finished_result_is_there_when_it_is_asked_for_by_its_path(study):
    record = next((study.path / "results/record").glob("*.json"))
    for path in (record.relative_to(study.path), record):
        done = study.snakemake("-n", str(path), flags=NO_PROFILE)
        assert done.code == 0, done.output
        assert "Nothing to be done" in done.output, done.output
    kept = record.read_bytes()
    assert study.snakemake(str(record), flags=("--force",)).code == 0
    assert record.read_bytes() == kept


def test_times_in_the_future_lose_nothing(study):
    """As after a copy from a machine whose clock is fast: Snakemake deletes what is older than its inputs."""
    record = study.record("A7")
    study.forget("A7")
    future = time.time() + 86_400
    for path in [*(study.path / "results").rglob("*"), *(study.path / "paper").rglob("*")]:
        if path.is_file():
            os.utime(path, (future, future))
    done = study.snakemake(SECTION)
    assert done.code == 0, done.output
    assert record.exists()
    assert study.planned(SECTION) == []


def test_without_a_profile_one_job_measures_times_at_once(study):
    study.forget("A7")
    command = ["snakemake", "--cores", "4", *NO_PROFILE, "--configfile", TINY, "--", "A7"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=study.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search("^Provided resources: .*timer.*1", done.stderr, re.MULTILINE)
