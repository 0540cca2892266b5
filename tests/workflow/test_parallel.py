"""A laptop with several cores: what is not timed runs side by side, what is timed runs alone."""

import json
import re
import subprocess
import sys
from datetime import datetime
from itertools import combinations
from pathlib import Path

import pytest

from tests.workflow.conftest import TINY, clone

Span = tuple[float, float]


def measured(path: Path) -> Span:
    """When the job ran that wrote a record."""
    environment = json.loads(path.read_text())["environment"]
    start = datetime.fromisoformat(environment["measured_at"]).timestamp()
    return start, start + environment["seconds"]


def side_by_side(log: str) -> set[frozenset[str]]:
    """Pairs of jobs, by the first words of their messages, that Snakemake had running at the same time."""
    running: dict[str, str] = {}
    found = set()
    for line in log.splitlines():
        if started := re.match(r"Job (\d+): (\w+ \w+)", line):
            found |= {frozenset((started[2], other)) for other in running.values()}
            running[started[1]] = started[2]
        elif finished := re.match(r"Finished jobid: (\d+)", line):
            # The targets' own rule has no message.
            running.pop(finished[1], None)
    return found


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
    done = subprocess.run(
        [*command, "--", "records"], cwd=study.path, check=True, capture_output=True, text=True
    )
    assert frozenset(("Extracting saliency", "Evaluating the")) in side_by_side(done.stderr)
    timed = sorted(map(measured, (study.path / "results").glob("record/*.json")))
    assert len(timed) == 5
    # A record's start is known to the second.
    assert not [pair for pair in combinations(timed, 2) if overlap((pair[0][0], pair[0][1] - 1), pair[1])]
