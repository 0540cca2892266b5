"""A configuration edited while jobs run changes nothing for the jobs already planned."""

import json
import os
import subprocess
import sys

from tests.workflow.conftest import TINY, Checkout


def forget(study: Checkout, *names: str) -> dict[str, dict]:
    """Delete the records of experiments; return their specs by path."""
    found = {}
    for path in (study.path / "results/record").glob("*.json"):
        record = json.loads(path.read_text())
        if record["label"] in names:
            path.unlink()
            found[path] = record["spec"]
    assert len(found) == len(names)
    return found


def edit(study: Checkout) -> None:
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    study.replace("config.yaml", "schedule: {keep_ratio: 0.8}", "schedule: {keep_ratio: 0.85}")


def test_jobs_of_this_machine_run_as_planned(study):
    forgotten = forget(study, "A7", "A9")
    with study.running("A7", "A9") as running:
        running.wait_until(lambda: "Evaluating A" in running.log.read_text())
        edit(study)
        done = running.finish()
    assert done.code == 0, done.output
    for path, spec in forgotten.items():
        assert json.loads(path.read_text())["spec"] == spec
    assert [job for job in study.planned() if "Evaluating" in job] == [
        "Evaluating A7 (SDTP)",
        "Evaluating A9 (SDTP)",
    ]


def test_a_job_that_a_scheduler_starts_later_runs_as_planned(study):
    (path, spec), *_ = forget(study, "A7").items()
    assert "Evaluating A7 (SDTP)" in study.planned()
    (planned_with,) = (study.path / "results/config").glob("*.json")
    edit(study)
    # As an executor starts it: in a process of its own, with the environment of the one that planned it.
    command = [sys.executable, "-m", "snakemake", "--mode", "remote", "--cores", "1", "--force", "--nolock"]
    command += ["--allowed-rules", "evaluate_sdtp", "--target-jobs", f"evaluate_sdtp:digest={path.stem}"]
    done = subprocess.run(
        [*command, "--configfile", TINY],
        cwd=study.path,
        env={**os.environ, "ABLATIONS_CONFIG": str(planned_with)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())["spec"] == spec
