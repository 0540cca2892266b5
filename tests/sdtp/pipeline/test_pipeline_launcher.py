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
from ablations.core.panel import Member, Panel
from ablations.sdtp.pipeline.environment import group_environment
from ablations.sdtp.pipeline.group import Peer, barrier, gather
from ablations.sdtp.pipeline.launcher import launch
from ablations.specs.sdtp.evaluate import TextSeries
from tests.sdtp.workspace import ARM, WINDOWS

SPEC = ARM | WINDOWS | {"measure": "text", "importance": "recent", "pipeline": {"ranks": 2}}
SLURM = {"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1234567", "SLURM_NTASKS": "2"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


def some_panel(out: Path) -> Panel[TextSeries]:
    job = JobFile[TextSeries](digest="d", module="m", spec=SPEC, spec_digest="s", code_digest="c")
    return Panel([Member(Run(job, out, "label"), ((0, 2), (2, 4)))])


@pytest.fixture
def panel(tmp_path) -> Panel[TextSeries]:
    return some_panel(tmp_path / "out")


def join(out: str) -> None:
    launch(meet, some_panel(Path(out)), 2)


def meet(panel: Panel[TextSeries], peer: Peer) -> None:
    peers = gather((peer.rank, os.getpid()))
    (member,) = panel.members
    if peer.rank == 0:
        text = f"{peer.ranks} {[rank for rank, _ in peers]} {member.label} {member.wanted()}"
        panel.first.out.write_text(text)
    assert len({process for _, process in peers}) == 2


def fail_in_first(panel: Panel[TextSeries], peer: Peer) -> None:
    if peer.rank == 0:
        panel.members[0].fail("too short")


def raise_in_one(panel: Panel[TextSeries], peer: Peer) -> None:
    if peer.rank == 1:
        raise UserError("schedule.layers: wrong")
    barrier()
    panel.first.out.write_text("never")


def memory_in_one(panel: Panel[TextSeries], peer: Peer) -> None:
    if peer.rank == 1:
        raise MemoryError
    barrier()


def wait_long(panel: Panel[TextSeries], peer: Peer) -> None:
    panel.first.out.with_name(f"rank-{peer.rank}").touch()
    time.sleep(600)


def start_waiting(out: str) -> None:
    launch(wait_long, some_panel(Path(out)), 2)


def killed_in_one(panel: Panel[TextSeries], peer: Peer) -> None:
    if peer.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


MET = "2 [0, 1] label [0, 1, 2, 3]"


def test_ranks_meet(panel):
    launch(meet, panel, 2)
    assert panel.first.out.read_text() == MET
    assert panel.members[0].failure is None


def test_a_failure_that_rank_0_wrote_down_is_known_after_its_end(panel, capfd):
    launch(fail_in_first, panel, 2)
    assert panel.members[0].failure == "too short"
    assert capfd.readouterr().err.count("error: label: too short") == 1


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (raise_in_one, r"^rank 1: schedule.layers: wrong$"),
        (memory_in_one, r"^rank 1: out of memory; lower"),
        (killed_in_one, r"^rank 1: .*SIGKILL"),
    ],
)
def test_one_failing_rank_ends_all(panel, work, message):
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        launch(work, panel, 2)
    assert time.monotonic() - start < 60
    assert not panel.first.out.exists()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def program(function: str, out: Path) -> list[str]:
    """Command that calls a function of this module in a process of its own."""
    module = "tests.sdtp.pipeline.test_pipeline_launcher"
    code = f"import sys; from {module} import {function}; {function}(sys.argv[1])"
    return [sys.executable, "-c", code, str(out)]


def test_a_killed_parent_leaves_no_rank_behind(panel):
    parent = subprocess.Popen(program("start_waiting", panel.first.out))
    started = []
    try:
        end = time.monotonic() + 120
        while len([*panel.first.out.parent.glob("rank-*")]) < 2:
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


def test_processes_of_a_slurm_step_meet(panel):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    step = {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            program("join", panel.first.out),
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
    assert panel.first.out.read_text() == MET
