"""Whatever fails ends with one clear line, an exit code that is not 0, and a state to go on from."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ablations.lm.timing import device_lock
from tests.workflow.conftest import PATIENCE, TINY, Checkout, Finished

pytestmark = pytest.mark.full

CPU = torch.device("cpu")
RECORDS, BLOCKS = "results/record", "results/block"
MEASURING_A7 = ["Evaluating 3 blocks side by side: A7 (3) (SDTP)", "Joining the blocks of A7"]

needs_mounts = pytest.mark.usefixtures("may_mount")


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory) -> None:
    """Refuses to go on where this process may not mount: full and read-only disks have to be real ones."""
    folder = tmp_path_factory.mktemp("mounted")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"needs to mount a tmpfs, as root: {done.stderr.strip()}", pytrace=False)
    subprocess.run(["umount", "-l", folder], check=True)


def errors(done: Finished) -> list[str]:
    """The one-line errors of a run that failed, each once."""
    assert done.code != 0
    assert "Traceback" not in done.output, done.output
    lines = (line.strip() for line in done.output.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("error: ")))


def recovered(study: Checkout, kept: dict[str, bytes]) -> None:
    """The next run has A7 again, and leaves what was there."""
    done = study.snakemake("A7")
    assert done.code == 0, done.output
    assert study.record("A7").exists()
    assert kept.items() <= study.records().items()


@contextmanager
def mounted(folder: Path, *arguments: object) -> Iterator[None]:
    """Something else over a folder."""
    subprocess.run(["mount", *map(str, arguments), folder], check=True)
    try:
        yield
    finally:
        # Whatever still has a file open in it must not keep it mounted.
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, root neither."""
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield


@needs_mounts
def test_a_full_disk_is_named(study):
    kept = study.forget("A7")
    folder = study.path / RECORDS
    with mounted(folder, "-t", "tmpfs", "-o", "size=8k", "tmpfs"):
        # Snakemake deletes a folder that it finds empty, which a mounted one cannot be.
        other = folder / "other"
        other.touch()
        first, missing = errors(study.snakemake("A7"))
        assert list(folder.iterdir()) == [other]
    # The blocks are there, so that nothing has to be measured again.
    assert study.planned("A7") == MEASURING_A7[1:]
    assert first.startswith(f"error: {RECORDS}/")
    assert first.endswith(": No space left on device")
    assert missing.startswith("error: not measured: ")
    recovered(study, kept)


@needs_mounts
def test_a_disk_that_is_full_before_a_block_is_whole_is_named(study):
    kept = study.forget("A7")
    with mounted(study.path / BLOCKS, "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
        first, *_ = errors(study.snakemake("A7"))
        assert not [*(study.path / BLOCKS).glob("*/*.json")]
    assert f": A7: {BLOCKS}/" in first
    assert ": No space left on device (logs/" in first
    recovered(study, kept)


@needs_mounts
def test_a_disk_that_is_full_before_a_checkpoint_is_whole_is_named(study):
    kept = study.forget("A7")
    study.replace(TINY, "width: 16", "width: 24")
    with mounted(study.path / "results/pruner", "-t", "tmpfs", "-o", "size=8k", "tmpfs"):
        first, *_ = errors(study.snakemake("A7"))
    assert ": baseline: results/pruner/" in first
    assert ": No space left on device (logs/" in first
    study.replace(TINY, "width: 24", "width: 16")
    recovered(study, kept)


@needs_mounts
def test_a_read_only_folder_is_named(study):
    kept = study.forget("A7")
    folder = study.path / RECORDS
    with read_only(folder):
        first, *_ = errors(study.snakemake("A7"))
    assert first == (
        f"error: {RECORDS}: cannot be written to (a read-only disk, or no permission); make it writable, then"
        " run the same command again"
    )
    recovered(study, kept)


@needs_mounts
def test_results_that_cannot_be_written_at_all_are_named_before_anything_runs(study):
    study.forget("A7")
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.6}")
    folder = study.path / "results"
    with read_only(folder):
        (only,) = errors(study.snakemake("A7"))
    assert re.match(f"error: ({RECORDS}|{BLOCKS}): cannot be written to", only)


@needs_mounts
def test_a_finished_study_that_is_only_to_be_read_can_be_looked_at(study):
    questions = [("status",), ("show",), ("show", "A7"), ("plan",), ("compare", "A7", "A9")]
    said = [study.ask(*question) for question in questions]
    with read_only(study.path):
        assert [study.ask(*question) for question in questions] == said
        (only,) = errors(study.snakemake("--dry-run"))
    assert only == (
        "error: .snakemake: cannot be written to, and Snakemake plans nothing without it; `python -m"
        " ablations.study status` says of a study that is only to be read what is fresh and what is due"
    )
    # A copy whose times say nothing: everything is read again, and what was read cannot be remembered.
    for path in (study.path / "results").rglob("*.safetensors"):
        os.utime(path)
    with read_only(study.path / "results"):
        assert study.planned() == []
        assert study.ask("status") == said[0]


def limited(study: Checkout, limit: Callable[[], None], *targets: str) -> Finished:
    """Run snakemake under limits of the operating system."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", TINY, "--", *targets],
        cwd=study.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limit,
        timeout=PATIENCE,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def test_running_out_of_memory_is_named(study):
    kept = study.forget("A7")
    study.replace(TINY, "    layers: 6\n    hidden_size: 64\n", "    layers: 6\n    hidden_size: 8192\n")
    address_space = 5 * 2**30
    done = limited(study, lambda: resource.setrlimit(resource.RLIMIT_AS, (address_space,) * 2), "A7")
    assert errors(done)[0] == (
        "error: out of memory; lower the token or document budgets in config.yaml, or use a larger machine"
    )
    study.replace(TINY, "hidden_size: 8192", "hidden_size: 64")
    recovered(study, kept)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[: len(text) // 2], "damaged ("),
        (lambda text: text.replace('"nll": ', '"nll": 1', 1), "edited after it was measured;"),
    ],
)
def test_a_damaged_or_edited_record_is_named_and_joined_again(study, edit, said):
    record = study.record("A7")
    record.write_text(edit(record.read_text()))
    (only,) = errors(study.snakemake("paper/ablation.tex"))
    name = f"{RECORDS}/{record.name}"
    assert only.startswith(f"error: {name}: {said}")
    assert only.endswith("delete it and run snakemake again")
    record.unlink()
    # It is joined anew from its blocks.
    assert study.planned("A7") == MEASURING_A7[1:]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[: len(text) // 2], "damaged ("),
        (lambda text: text.replace('"nll": ', '"nll": 1', 1), "edited after it was measured;"),
    ],
)
def test_a_damaged_or_edited_block_is_named_and_measured_again(study, edit, said):
    (block,) = study.series("A7")["text"].glob("*.json")
    study.record("A7").unlink()
    block.write_text(edit(block.read_text()))
    first, *_ = errors(study.snakemake("A7"))
    assert first.startswith(f"error: {block.relative_to(study.path)}: {said}")
    assert first.endswith("delete it and run snakemake again")
    block.unlink()
    assert study.planned("A7") == [
        "Evaluating 1 block side by side: A7 (1) (SDTP)",
        "Joining the blocks of A7",
    ]


def test_a_truncated_checkpoint_is_built_again_before_it_is_read(study):
    kept = study.forget("A7")
    whole = {path: path.read_bytes() for path in (study.path / "results/pruner").rglob("*.safetensors")}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    assert "Training baseline" in study.snakemake("--dry-run", "A7").output
    recovered(study, kept)
    assert any(path.read_bytes() == content for path, content in whole.items())


def test_a_checkpoint_damaged_after_planning_is_named_and_built_again(study):
    kept = study.forget("A7")
    # Every learned arm of the tiny study loads one of these.
    for weights in (study.path / "results/pruner").rglob("*.safetensors"):
        study.spoil(weights)
    first, *_ = errors(study.snakemake("A7"))
    assert "its SHA-256 is not the one in manifest.json (corrupt or edited); delete results/pruner/" in first
    manifest = first.split("delete ")[1].split(" ")[0]
    (study.path / manifest).unlink()
    recovered(study, kept)


def test_code_edited_after_planning_is_refused_and_nothing_is_written(study):
    kept = study.forget("A7")
    blocks = study.blocks()
    command, _ = study.commands("A7")
    module = study.path / "src/ablations/sdtp/evaluation/arm.py"
    module.write_text(f"{module.read_text()}\n\nOTHER = 1\n")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=study.path,
        env=study.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: ablations.sdtp.evaluation.arm: edited after this job was planned; run snakemake again,"
        " which plans it anew\n"
    )
    assert study.records() == kept
    assert study.blocks() == blocks


def test_two_at_once_are_told_apart(study):
    kept = study.forget("A7")
    with study.running("A7") as running:
        # The first one's measurement waits for the device, so that it runs when the second one starts.
        with device_lock(CPU):
            running.wait_until(lambda: any((study.path / ".snakemake/locks").glob("*")))
            second = study.snakemake("A7")
        first = running.finish()
    assert second.code != 0
    assert "Directory cannot be locked" in second.output
    assert first.code == 0, first.output
    assert study.record("A7").exists()
    assert kept.items() <= study.records().items()


def test_what_does_not_fail_is_finished_and_the_paper_says_what_is_missing(study):
    paper = (study.path / "paper/ablation.tex").read_bytes()
    study.forget("A9", "F1", "P1")
    # P1 alone reads a calibration.
    (calibration,) = (study.path / "results/calibration").glob("*/calibration.json")
    study.spoil(calibration)
    done = study.snakemake("--keep-going", "paper/ablation.tex")
    first, missing = errors(done)
    assert "its SHA-256 is not the one in manifest.json" in first
    assert missing.startswith("error: not measured: P1. The paper leaves no experiment out")
    assert study.record("A9").exists()
    assert study.record("F1").exists()
    assert (study.path / "paper/ablation.tex").read_bytes() == paper


def test_a_killed_panel_is_run_again_and_nothing_else(study):
    kept, logs = study.forget("A7"), study.path / "logs/evaluate_sdtp"
    shutil.rmtree(logs)
    # The panel waits for the device, so that it is killed before it has ended.
    with device_lock(CPU), study.running("A7") as running:
        running.wait_until(lambda: any(logs.glob("*.log")))
        running.kill()
    assert "Directory cannot be locked" in study.snakemake("A7").output
    assert study.snakemake("--unlock").code == 0
    assert study.planned("A7") == MEASURING_A7
    recovered(study, kept)
