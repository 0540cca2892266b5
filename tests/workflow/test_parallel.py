"""A laptop with several cores: what is not timed runs side by side, what is timed runs alone."""

import json
import subprocess
import sys
from datetime import datetime
from itertools import combinations
from pathlib import Path

import pytest

from tests.workflow.conftest import TINY, clone

Span = tuple[float, float]


def built(path: Path) -> Span:
    """When the job ran that made an artefact."""
    end = path.stat().st_mtime
    return end - json.loads(path.read_text())["seconds"], end


def measured(path: Path) -> Span:
    """When the job ran that wrote a record."""
    environment = json.loads(path.read_text())["environment"]
    start = datetime.fromisoformat(environment["measured_at"]).timestamp()
    return start, start + environment["seconds"]


def overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


@pytest.mark.full
def test_timed_jobs_run_one_at_a_time_and_others_side_by_side(tmp_path):
    study = clone(tmp_path / "study")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "4",
        "--configfile",
        TINY,
        "tests/slurm/study.yaml",
    ]
    subprocess.run([*command, "--", "records"], cwd=study.path, check=True, capture_output=True)
    results = study.path / "results"
    (saliency,) = map(built, results.glob("saliency/*/manifest.json"))
    (reference,) = map(built, results.glob("reference/*/manifest.json"))
    assert overlap(saliency, reference)
    timed = sorted(map(measured, results.glob("record/*.json")))
    assert len(timed) == 5
    # A record's start is known to the second.
    assert not [pair for pair in combinations(timed, 2) if overlap((pair[0][0], pair[0][1] - 1), pair[1])]
