"""Questions about a finished study, asked on the command line."""

import re
import shutil
import subprocess
import sys

from tests.workflow.conftest import TINY, Checkout


def ask(study: Checkout, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ablations.study", *arguments, "--configfile", TINY]
    return subprocess.run(
        command, cwd=study.path, env=study.environment, capture_output=True, text=True, check=False
    )


def states(study: Checkout) -> dict[str, str]:
    """Lines of `status` by experiment."""
    done = ask(study, "status")
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}


def test_status_names_what_is_stale_and_why(study):
    fresh = states(study)
    assert {"baseline", "A7", "F4", "K2"} <= set(fresh)
    assert not [name for name, line in fresh.items() if line.startswith(("stale", "never run"))]
    assert "experiments to measure" not in str(fresh)
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    study.replace("config.yaml", "shape: {depth: 1}", "shape: {depth: 2}")
    found = states(study)
    assert found["A7"].startswith("stale") and "0.5 -> 0.55" in found["A7"]
    assert found["D1"].startswith("stale") and "shape.depth 1 -> 2" in found["D1"]
    assert found["A7"].endswith("3 of 3 blocks are missing")
    assert [name for name, line in found.items() if line.startswith("stale")] == ["A7", "D1"]
    # Three of A7, and of D1 three that are timed and three that are replayed.
    assert found["2"].startswith("experiments to measure (9 blocks)")


def test_status_follows_inputs_and_pins(study):
    study.replace(TINY, "warmup_epochs: 1", "warmup_epochs: 2")
    assert "input pruner: spec warmup_epochs 1 -> 2" in states(study)["A7"]
    study.replace(TINY, "warmup_epochs: 2", "warmup_epochs: 1")
    study.replace("constraints.txt", "torch==2.13.0", "torch==2.13.1")
    assert "environment torch 2.13.0 -> 2.13.1" in states(study)["A7"]


def test_status_names_the_modules_that_changed_and_damaged_artefacts(study):
    study.planned()
    losses = study.path / "src/ablations/sdtp/training/losses.py"
    losses.write_text(losses.read_text() + "\n\nOTHER = 1\n")
    found = states(study)
    assert "input pruner: code sdtp.training.losses" in found["A7"]
    assert found["F4"].startswith("fresh")
    corpus = next((study.path / "results/ngram").glob("*/*.safetensors"))
    corpus.write_bytes(corpus.read_bytes()[:-1])
    assert f"{corpus.relative_to(study.path)}:" in states(study)


def test_status_names_a_record_that_cannot_be_read(study):
    shown = ask(study, "show", "A9").stdout.splitlines()
    record = next(line.split()[1] for line in shown if line.startswith("record"))
    (study.path / record).write_text("{")
    assert states(study)["A9"] == f"damaged {record} cannot be read; delete it"


def test_a_renamed_experiment_keeps_its_measurement(study):
    before = states(study)["A9"]
    study.replace("config.yaml", "    A9:\n", "    Ninety:\n")
    study.replace(TINY, "A9,", "Ninety,")
    assert states(study)["Ninety"] == before


def test_a_forgotten_experiment_was_never_run_and_makes_the_paper_stale(study):
    said = ask(study, "forget", "A9")
    assert said.returncode == 0 and "measures A9 again" in said.stdout
    assert states(study)["A9"].startswith("never run")
    planned = study.planned()
    assert "Evaluating 3 blocks side by side: A9 (3) (SDTP)" in planned
    assert "Writing paper/ablation.tex" in planned
    again = ask(study, "forget", "A9")
    assert again.returncode != 0 and "nothing to forget" in again.stderr


def test_status_says_how_many_blocks_are_missing(study):
    prefill = study.series("A9")["prefill"]
    study.record("A9").unlink()
    assert states(study)["A9"].startswith("unfinished all of its blocks are there")
    shutil.rmtree(prefill)
    assert states(study)["A9"] == "unfinished 1 of 3 blocks are missing"
    study.replace(TINY, "    documents: 6\n    prompt_tokens", "    documents: 7\n    prompt_tokens")
    assert re.fullmatch("unfinished .* 1 of 4 blocks are missing", states(study)["A7"])


def test_prune_deletes_what_no_study_needs_and_nothing_else(study):
    before = sorted((study.path / "results").rglob("*"))
    asked = ask(study, "prune", "--yes").stdout.splitlines()
    # Its questions are to be fetched.
    assert [line.split(" cannot")[0] for line in asked[:-1]] == ["workflow/studies/spec-bench.yaml"]
    assert asked[-1].startswith("nothing to prune")
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.55}")
    refused = ask(study, "prune")
    assert refused.returncode != 0
    assert "--yes" in refused.stderr
    assert sorted((study.path / "results").rglob("*")) == before
    assert ask(study, "prune", "--yes").returncode == 0
    gone = {path for path in before if not path.exists()}
    kinds = {path.relative_to(study.path / "results").parts[0] for path in gone}
    assert {"block", "config", "record", "spec"} <= kinds <= {"block", "config", "panel", "record", "spec"}
    assert states(study)["A7"].startswith("never run")
    assert states(study)["A9"].startswith("fresh")


def test_prune_deletes_what_kills_left_but_not_while_snakemake_works(study):
    record = next((study.path / "results/record").glob("*.json"))
    pruner = next((study.path / "results/pruner").iterdir())
    left = [record.with_name(f".{record.name}.abc.tmp"), pruner.with_name(f".{pruner.name}.xyz")]
    kept = pruner.with_name(f".{pruner.name}.checkpoint")
    for path in (*left, kept):
        path.write_text("half")
    lock = study.path / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    refused = ask(study, "prune", "--yes")
    assert refused.returncode == 1 and "a snakemake run works in this folder" in refused.stderr
    lock.unlink()
    assert ask(study, "prune", "--yes").returncode == 0
    assert [path.exists() for path in (*left, kept)] == [False, False, True]
    assert record.exists() and pruner.exists()
