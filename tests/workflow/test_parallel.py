"""A laptop with several cores: what is not timed runs side by side, what is timed runs alone."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.workflow.conftest import PATIENCE, TINY, clone

TIMED = {"calibrate_target", "calibrate_costs", "decode", "evaluate_sdtp", "evaluate_pipeline"}
OVERLAYS = ("tests/slurm/study.yaml", "tests/workflow/replays.yaml")


def side_by_side(log: str) -> Iterator[tuple[str, str]]:
    """Rules of every two jobs that Snakemake had running at the same time, in alphabetical order.

    It says that a job starts before it starts it, and that one is finished after it has ended.
    """
    rules = dict(re.findall(r"^Finished jobid: (\d+) \(Rule: (\w+)\)", log, re.MULTILINE))
    running: set[str] = set()
    for started, finished in re.findall(r"^(?:Job (\d+): |Finished jobid: (\d+))", log, re.MULTILINE):
        if started:
            yield from (tuple(sorted((rules[started], rules[other]))) for other in running)
            running.add(started)
        # The targets' own rule has no message.
        running.discard(finished)


@pytest.mark.full
def test_timed_jobs_run_one_at_a_time_and_others_side_by_side(tmp_path):
    study = clone(tmp_path / "study")
    # One experiment a panel, so that several panels of a rule could run at the same time.
    alone = ["--config", 'panel={"experiments": 1}']
    command = [sys.executable, "-m", "snakemake", "--verbose", "--cores", "4", *alone, "--configfile", TINY]
    done = subprocess.run(
        [*command, *OVERLAYS, "--", "records"],
        cwd=study.path,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    ran = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", done.stderr, re.MULTILINE)
    # Two of pruning, one of a pipeline, two of decoding; costs of the target and of its drafter.
    assert sum(rule in TIMED for rule in ran) == 7
    pairs = {*side_by_side(done.stderr)}
    assert ("prepare_model", "prepare_text") in pairs
    assert not [pair for pair in pairs if TIMED.issuperset(pair)]
    # Beside a measurement Snakemake sleeps until a job has ended; by the clock it looked hundreds of times.
    assert 0 < done.stderr.count("Ready jobs: ") <= 2 * len(ran)
