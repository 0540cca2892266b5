"""Questions about a finished study, asked on the command line."""

import subprocess
import sys

from tests.workflow.conftest import TINY, Checkout


def ask(study: Checkout, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ablations.study", *arguments, "--configfile", TINY]
    return subprocess.run(command, cwd=study.path, capture_output=True, text=True, check=False)


def states(study: Checkout) -> dict[str, str]:
    """Lines of `status` by experiment."""
    done = ask(study, "status")
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}


def test_status_names_what_is_stale_and_why(study):
    fresh = states(study)
    assert {"baseline", "A7", "F4", "K2"} <= set(fresh)
    assert not [name for name, line in fresh.items() if line.startswith(("stale", "never run"))]
    assert not [line for line in fresh.values() if line.startswith("jobs to run")]
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    study.replace("config.yaml", "shape: {depth: 1}", "shape: {depth: 2}")
    found = states(study)
    assert found["A7"].startswith("stale") and "0.5 -> 0.55" in found["A7"]
    assert found["D1"].startswith("stale") and found["D1"].endswith("shape.depth 1 -> 2")
    assert [name for name, line in found.items() if line.startswith("stale")] == ["A7", "D1"]
    assert found["2"].startswith("jobs to run")


def test_status_follows_inputs_and_pins(study):
    study.replace(TINY, "warmup_epochs: 1", "warmup_epochs: 2")
    assert "pruner: warmup_epochs 1 -> 2" in states(study)["A7"]
    study.replace(TINY, "warmup_epochs: 2", "warmup_epochs: 1")
    study.replace("constraints.txt", "torch==2.13.0", "torch==2.13.1")
    assert "torch 2.13.0 -> 2.13.1" in states(study)["A7"]


def test_prune_deletes_what_no_study_needs_and_nothing_else(study):
    before = sorted((study.path / "results").rglob("*"))
    assert ask(study, "prune", "--yes").stdout.startswith("nothing to prune")
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    refused = ask(study, "prune")
    assert refused.returncode != 0
    assert "--yes" in refused.stderr
    assert sorted((study.path / "results").rglob("*")) == before
    assert ask(study, "prune", "--yes").returncode == 0
    gone = {path for path in before if not path.exists()}
    assert sorted({path.parent.name for path in gone}) == ["record", "spec"]
    assert states(study)["A7"].startswith("never run")
    assert states(study)["A9"].startswith("fresh")
