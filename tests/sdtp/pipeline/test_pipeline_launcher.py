"""Ranks of a pipeline: started here or by an external launcher, and ended together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ablations.core.errors import UserError
from ablations.core.job import JobFile, Run
from ablations.sdtp.pipeline.environment import group_environment
from ablations.sdtp.pipeline.group import Member, barrier, gather
from ablations.sdtp.pipeline.launcher import launch
from ablations.specs.sdtp.evaluate import EvaluateSpec

SPEC = {
    "importance": "recent",
    "layers": [1],
    "keep_ratios": [0.5],
    "match": None,
    "preserve": {"head": 1, "tail": 1},
    "positions": "original",
    "mask": "hard",
    "propagation": "cascade",
    "selection": "top_k",
    "saliency": None,
    "pipeline": {"ranks": 2},
    "windows": {"documents": 1, "prompt_tokens": 8, "continuation_tokens": 2},
    "retrieval": None,
    "timing": None,
    "seed": 0,
    "compute": {"dtype": "float32", "threads": 1},
}
SLURM = {"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1234567", "SLURM_NTASKS": "2"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


def some_run(out: Path) -> Run[EvaluateSpec]:
    job = JobFile[EvaluateSpec](digest="d", module="m", spec=SPEC, spec_digest="s", code_digest="c")
    return Run(job, out, "label")


@pytest.fixture
def run(tmp_path) -> Run[EvaluateSpec]:
    return some_run(tmp_path / "record.json")


def join(out: str) -> None:
    launch(meet, some_run(Path(out)))


def meet(run: Run[EvaluateSpec], member: Member) -> None:
    members = gather((member.rank, os.getpid()))
    if member.rank == 0:
        run.out.write_text(f"{member.ranks} {[rank for rank, _ in members]} {run.label}")
    assert len({process for _, process in members}) == 2


def raise_in_one(run: Run[EvaluateSpec], member: Member) -> None:
    if member.rank == 1:
        raise UserError("schedule.layers: wrong")
    barrier()
    run.out.write_text("never")


def memory_in_one(run: Run[EvaluateSpec], member: Member) -> None:
    if member.rank == 1:
        raise MemoryError
    barrier()


def wait_long(run: Run[EvaluateSpec], member: Member) -> None:
    run.out.with_name(f"rank-{member.rank}").touch()
    time.sleep(600)


def start_waiting(out: str) -> None:
    launch(wait_long, some_run(Path(out)))


def killed_in_one(run: Run[EvaluateSpec], member: Member) -> None:
    if member.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def test_ranks_meet(run):
    launch(meet, run)
    assert run.out.read_text() == "2 [0, 1] label"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (raise_in_one, r"^rank 1: schedule.layers: wrong$"),
        (memory_in_one, r"^rank 1: out of memory; lower"),
        (killed_in_one, r"^rank 1: .*SIGKILL"),
    ],
)
def test_one_failing_rank_ends_all(run, work, message):
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        launch(work, run)
    assert time.monotonic() - start < 60
    assert not run.out.exists()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def program(function: str, out: Path) -> list[str]:
    """Command that calls a function of this module in a process of its own."""
    module = "tests.sdtp.pipeline.test_pipeline_launcher"
    code = f"import sys; from {module} import {function}; {function}(sys.argv[1])"
    return [sys.executable, "-c", code, str(out)]


def test_a_killed_parent_leaves_no_rank_behind(run):
    parent = subprocess.Popen(program("start_waiting", run.out))
    started = []
    try:
        end = time.monotonic() + 120
        while len([*run.out.parent.glob("rank-*")]) < 2:
            assert parent.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        started = psutil.Process(parent.pid).children(recursive=True)
        assert len(started) >= 2
        parent.kill()
        _, alive = psutil.wait_procs(started, timeout=60)
        assert not alive
    finally:
        parent.kill()
        parent.wait()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_a_lone_process_is_in_no_group(monkeypatch):
    assert group_environment(2) is None
    # An allocation of two tasks whose batch script runs one process: srun did not start it.
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert group_environment(2) is None
    # A step of a single task, as Snakemake's executor starts it.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert group_environment(2) is None


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_an_empty_variable_describes_no_group_and_another_word_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert group_environment(2) is None
    monkeypatch.setenv(name, "two")
    with pytest.raises(UserError, match=f"^{name}: 'two' is no number of a process group; unset it"):
        group_environment(2)


@pytest.mark.parametrize("value", ["", "first"])
def test_a_rank_that_is_no_number_is_named(monkeypatch, value):
    for name, usual in (TORCHRUN | {"RANK": value}).items():
        monkeypatch.setenv(name, usual)
    with pytest.raises(UserError, match="RANK"):
        group_environment(2)


def test_torchrun_is_joined(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    group = group_environment(2)
    assert (group.rank, group.local_rank, group.rendezvous) == (1, 0, "env://")
    with pytest.raises(UserError, match=r"^pipeline.ranks: 4, but .* 2 processes \(WORLD_SIZE\)"):
        group_environment(4)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="MASTER_PORT is not"):
        group_environment(2)


def test_slurm_step_is_joined(monkeypatch, tmp_path):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[03-04]")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
    assert group_environment(2).rendezvous == "tcp://127.0.0.1:24567"
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        group_environment(2)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho node03\necho node04\n")
    scontrol.chmod(0o755)
    group = group_environment(2)
    assert (group.rank, group.local_rank, group.rendezvous) == (1, 0, "tcp://node03:24567")


def test_processes_of_a_slurm_step_meet(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    step = {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            program("join", run.out),
            env=os.environ | step | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert run.out.read_text() == "2 [0, 1] label"
