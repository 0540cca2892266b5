"""Panels of real processes: an entry that ends its process is named, and the others are done without it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ablations
from ablations.core.supervise import read_report

SOURCE = Path(ablations.__file__).parents[1]

WORKER = """
import os, signal, time
from pathlib import Path

from ablations.core.contract import Contract
from ablations.core.errors import UserError
from ablations.core.panel import main

HERE = Path(__file__).parent


class Behaviour(Contract):
    does: str


def work(panel):
    with open(HERE / "attempts", "a") as attempts:
        print(*(member.label for member in panel.members), file=attempts)
    for member in panel.due():
        if member.spec.does == "end all":
            raise UserError("the model is missing")
        if member.spec.does == "killed between":
            os.kill(os.getpid(), signal.SIGKILL)
        with member.at_work():
            does = member.spec.does
            if does == "exit" or (does == "greedy" and len(panel.members) > 1):
                os._exit(137)
            if does == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if does == "raise":
                raise ZeroDivisionError("a fault")
            if does == "fail":
                raise UserError("its table is missing")
            if does == "fill the disk":
                raise OSError(28, "No space left on device", "results/x")
            if does == "wait":
                (HERE / "pid").write_text(str(os.getpid()))
                time.sleep(60)
            member.run.out.parent.mkdir(exist_ok=True)
            member.run.out.write_text(os.environ.get("LAUNCHED", ""))


main("worker", Behaviour, work, "")
if (HERE / "fault").exists():
    os._exit(139)
"""


class Bench:
    """A folder with a panel of jobs, each of which does what is said of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.panel = folder / "panel" / "p.json"
        self.receipt = folder / "panel" / "p.done"
        (folder / "worker.py").write_text(WORKER)

    def command(self, *does: str, module: str = "worker", options: tuple[str, ...] = ()) -> list[str | Path]:
        """Write a panel of jobs a, b, c ... and their specs; returns the command that runs it."""
        entries = []
        for digest, behaviour in zip("abcdef", does, strict=False):
            job = {"digest": digest, "module": module, "spec": {"does": behaviour}}
            path = self.folder / "spec" / f"{digest}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(job | {"spec_digest": "s", "code_digest": "c"}))
            out = str(self.folder / "result" / digest)
            entries.append({"digest": digest, "label": digest.upper(), "out": out})
        self.panel.parent.mkdir(exist_ok=True)
        self.panel.write_text(json.dumps({"rule": "rule", "module": module, "entries": entries}))
        supervise = [sys.executable, "-m", "ablations.core.supervise"]
        return [*supervise, "--panel", self.panel, "--out", self.receipt, *options]

    @property
    def environment(self) -> dict[str, str]:
        """In which the worker is importable."""
        return {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{SOURCE}"}

    def run(self, *does: str, module: str = "worker", options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        """Exit status and the lines of stderr."""
        command = self.command(*does, module=module, options=options)
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert sorted(path.name for path in self.panel.parent.iterdir() if path != self.receipt) == ["p.json"]
        return ended.returncode, ended.stderr.splitlines()

    @property
    def attempts(self) -> list[str]:
        """Jobs of each process, in order."""
        return (self.folder / "attempts").read_text().splitlines()

    @property
    def done(self) -> list[str]:
        """Digests of the results that are there."""
        return sorted(path.name for path in (self.folder / "result").glob("*"))


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_all_in_one_process(bench):
    assert bench.run("work", "work", "work") == (0, [])
    assert bench.attempts == ["A B C"]
    assert bench.done == ["a", "b", "c"]
    assert json.loads(bench.receipt.read_text()) == {"failed": {}}


def test_what_is_there_is_not_done_again(bench):
    bench.run("work", "work")
    (bench.folder / "result" / "b").write_text("as it was")
    bench.run("work", "kill")
    assert (bench.folder / "result" / "b").read_text() == "as it was"


@pytest.mark.parametrize(
    ("does", "ended"), [("exit", "exit status 137"), ("kill", "signal SIGKILL"), ("raise", "exit status 1")]
)
def test_an_entry_that_ends_its_process_is_named_and_the_others_are_done(bench, does, ended):
    status, lines = bench.run("work", does, "work", "work")
    assert status == 1
    assert bench.attempts == ["A B C D", "A C D", "B"], "once more, alone"
    assert bench.done == ["a", "c", "d"]
    assert not bench.receipt.exists()
    assert f"B took its process down ({ended}); the others go on without it" in lines
    assert (
        f"error: B: B took its process down ({ended}), alone too; give it more memory, or change it" in lines
    )
    assert lines[-1] == "error: not done: B; all else of this panel is"


def test_an_entry_that_works_alone_is_done(bench):
    status, lines = bench.run("greedy", "work")
    assert (status, bench.done) == (0, ["a", "b"])
    assert bench.attempts == ["A B", "B", "A"]
    assert bench.receipt.exists()
    assert lines == [
        "A took its process down (exit status 137); the others go on without it",
        "trying A alone",
    ]


def test_several_entries_that_end_their_processes(bench):
    status, lines = bench.run("exit", "greedy", "work", "fail")
    assert status == 1
    assert bench.attempts == ["A B C D", "B C D", "C D", "A", "B"]
    assert bench.done == ["b", "c"]
    assert lines[-1] == "error: not done: D, A; all else of this panel is"


def test_an_entry_that_fails_does_not_stop_the_others_and_is_not_tried_again(bench):
    status, lines = bench.run("work", "fail", "work")
    assert (status, bench.done) == (1, ["a", "c"])
    assert bench.attempts == ["A B C"]
    assert not bench.receipt.exists()
    assert lines[0] == lines[-2] == "error: B: its table is missing"
    assert lines[-1] == "error: not done: B; all else of this panel is"


def test_a_full_disk_is_no_end_of_the_process(bench):
    status, lines = bench.run("fill the disk", "work")
    assert (status, bench.done, len(bench.attempts)) == (1, ["b"], 1)
    assert lines[0] == "error: A: results/x: No space left on device"


def test_failures_can_be_left_to_what_needs_the_result(bench):
    status, _ = bench.run("work", "fail", "exit", options=("--passes-on", "all"))
    assert (status, bench.done) == (0, ["a"])
    failed = json.loads(bench.receipt.read_text())["failed"]
    assert set(failed) == {"b", "c"}
    assert failed["b"] == "B: its table is missing"
    assert failed["c"].startswith("C: C took its process down (exit status 137), alone too")


def test_the_end_of_a_process_can_fail_the_panel_where_errors_do_not(bench):
    options = ("--passes-on", "errors")
    status, lines = bench.run("work", "fail", "exit", options=options)
    assert (status, bench.done, bench.receipt.exists()) == (1, ["a"], False)
    assert lines[-1] == "error: not done: B, C; all else of this panel is"
    (bench.folder / "attempts").unlink()
    assert bench.run("work", "fail", options=options)[0] == 0
    assert set(json.loads(bench.receipt.read_text())["failed"]) == {"b"}


def test_an_entry_whose_input_was_not_made_fails_with_the_reason(bench):
    receipt = bench.folder / "q.train.done"
    receipt.write_text(json.dumps({"failed": {"x": "X: its losses are NaN"}}))
    bench.command("work", "work")
    spec = bench.folder / "spec" / "b.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"input_digests": {"pruner": "x"}}))
    command = [sys.executable, "-m", "ablations.core.supervise", "--panel", bench.panel]
    command += ["--out", bench.receipt, "--receipts", receipt]
    ended = subprocess.run(command, env=bench.environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, bench.done) == (1, ["a"])
    reason = "error: B: input 'pruner' was not made: X: its losses are NaN (logs/train/q.log)"
    assert ended.stderr.splitlines()[0] == reason


@pytest.mark.parametrize("options", [(), ("--passes-on", "errors"), ("--passes-on", "all")])
@pytest.mark.parametrize(
    ("does", "message"),
    [
        # The second of them fails after an entry failed on its own: the others are not done for that.
        (("work", "end all", "work"), "exit status 1"),
        (("fail", "end all", "work"), "exit status 1"),
        (("work", "killed between"), "signal SIGKILL"),
    ],
)
def test_an_error_in_what_all_share_is_nobodys(bench, does, message, options):
    status, lines = bench.run(*does, options=options)
    assert status == 1
    assert len(bench.attempts) == 1
    assert not bench.receipt.exists()
    assert lines[-1].startswith(
        f"error: the process of this panel ended at what all its jobs share ({message})"
    )
    assert not any("took its process down" in line for line in lines)


def test_a_panel_that_cannot_start(bench):
    status, lines = bench.run("work", "work", module="no_such_module")
    assert status == 1
    assert any("No module named no_such_module" in line for line in lines)
    assert lines[-1].startswith("error: the process of this panel ended at what all its jobs share")
    assert not bench.receipt.exists()


def test_a_fault_after_all_is_done_does_not_matter(bench):
    (bench.folder / "fault").touch()
    assert bench.run("work", "work") == (0, [])
    assert bench.receipt.exists()


def test_a_missing_panel_is_one_line(bench):
    command = bench.command("work")
    bench.panel.unlink()
    ended = subprocess.run(command, env=bench.environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"error: {bench.panel}: no such panel; run snakemake, which plans it\n"


def test_a_launcher_starts_the_process(bench):
    assert bench.run("work", options=("--launcher", "env LAUNCHED='by me'")) == (0, [])
    assert (bench.folder / "result" / "a").read_text() == "by me"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_the_process_and_blames_nobody(bench, number):
    command = bench.command("work", "wait", "work", options=("--passes-on", "all"))
    supervisor = subprocess.Popen(command, env=bench.environment, stderr=subprocess.PIPE, text=True)
    pid_file = bench.folder / "pid"
    try:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()):
            assert supervisor.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        supervisor.send_signal(number)
        _, said = supervisor.communicate(timeout=30)
    finally:
        supervisor.kill()
    assert supervisor.returncode == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert said == ""
    assert bench.attempts == ["A B C"]
    assert bench.done == ["a"], "what was done is kept"
    assert [path.name for path in bench.panel.parent.iterdir()] == ["p.json"]


@pytest.mark.parametrize("module", ["block", "panel", "supervise"])
def test_nothing_of_torch_is_imported(module):
    code = f"import sys, ablations.core.{module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True)


def test_of_several_ranks_the_one_that_lags_behind_was_at_work():
    lines = [("r0", "a"), ("r1", "a"), ("r0", None), ("r0", "b")]
    text = "".join(json.dumps({"process": process, "at": at}) + "\n" for process, at in lines)
    assert read_report(text, 1).at == "a"
    assert read_report(text + '{"process": "r1", "at": null}\n', 1).at == "b"
