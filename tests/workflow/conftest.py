"""The tiny study, run once through real Snakemake in a copy of the repository."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
TINY = "workflow/studies/tiny.yaml"
BENCHMARK = "results/benchmark/decoding.json"
ARCHIVE = "results/archive.tar.gz"
MADE = ("paper/ablation.tex", "paper/results.html", ARCHIVE, BENCHMARK)
"""What the finished tiny study has made."""
PATIENCE = 1800
"""Seconds after which whatever a test waits for counts as hung."""


@dataclass(frozen=True)
class Finished:
    """A finished snakemake process."""

    code: int
    output: str


@dataclass(frozen=True)
class Running:
    """A snakemake that was started, and the file of what it prints."""

    process: subprocess.Popen
    log: Path

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for something that it does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def finish(self) -> Finished:
        """Wait for its end."""
        return Finished(self.process.wait(PATIENCE), self.log.read_text())

    def kill(self) -> None:
        """End it and its jobs at once, as far as they still run."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository to run and edit."""

    OVERLAYS: ClassVar[tuple[str, ...]] = (TINY,)
    """Files over config.yaml, of the study that it is asked for."""

    path: Path

    def snakemake(self, *arguments: str, study: str = TINY, flags: Sequence[str] = ()) -> Finished:
        """Run snakemake on the tiny study, whose times nobody reads: timed jobs start side by side.

        Args:
            arguments: Targets, and options without values.
            study: Overlay of the configuration.
            flags: Options with their values.
        """
        flags = [*flags, *(argument for argument in arguments if argument.startswith("-"))]
        targets = [argument for argument in arguments if not argument.startswith("-")]
        side_by_side = ["--cores", "2", "--resources", "timer=2"]
        command = [sys.executable, "-m", "snakemake", *side_by_side]
        command += ["--configfile", study, *flags, "--", *targets]
        done = subprocess.run(
            command,
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Finished(done.returncode, done.stdout)

    @contextmanager
    def running(self, *targets: str) -> Iterator[Running]:
        """Start snakemake, one job at a time; nothing of it outlives the block."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", TINY, "--", *targets]
        log = self.path / "running.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=self.path, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        running = Running(process, log)
        try:
            yield running
        finally:
            running.kill()

    def planned(self, target: str = "paper/ablation.tex") -> list[str]:
        """Messages of the jobs that snakemake would run now, sorted; with ids and without times."""
        done = self.snakemake("-n", target)
        assert done.code == 0, done.output
        lines = re.sub(r", about \d+ min\b", "", done.output).splitlines()
        return sorted(line.split(": ", 1)[1] for line in lines if line.startswith("Job ") and ": " in line)

    def commands(self, *targets: str) -> list[list[str]]:
        """What snakemake would run now, as arguments of the interpreter."""
        done = self.snakemake("-n", "--printshellcmds", *targets)
        assert done.code == 0, done.output
        lines = re.findall(r"^Shell command: +python (.*?) > \S+ 2>&1$", done.output, re.MULTILINE)
        return [shlex.split(line) for line in lines]

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which the code of this copy runs, not that which is installed."""
        return {**os.environ, "PYTHONPATH": str(self.path / "src")}

    def ask(self, *arguments: str) -> str:
        """What `python -m ablations.study` says of the study."""
        command = [sys.executable, "-m", "ablations.study", *arguments, "--configfile", *self.OVERLAYS]
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def records(self) -> dict[str, bytes]:
        """All records."""
        return {path.name: path.read_bytes() for path in (self.path / "results/record").glob("*.json")}

    def records_of(self, experiment: str) -> list[Path]:
        """Paths of the records that were measured for an experiment, one per training seed."""
        return [
            path
            for path in sorted((self.path / "results/record").glob("*.json"))
            if json.loads(path.read_text())["label"] == experiment
        ]

    def record(self, experiment: str) -> Path:
        """Path of the one record that was measured for an experiment."""
        (found,) = self.records_of(experiment)
        return found

    def inputs(self, result: Path) -> dict[str, Path]:
        """Paths of what a result was made from, by name: of a record, folders of blocks, and costs."""
        spec = json.loads((self.path / f"results/spec/{result.stem}.json").read_text())
        return {name: self.path / path for name, path in spec["inputs"].items()}

    def series(self, experiment: str) -> dict[str, Path]:
        """Folders of the blocks of an experiment's one record, by measure or kind of prompts."""
        return self._series(self.record(experiment))

    def _series(self, record: Path) -> dict[str, Path]:
        """Folders of the blocks that a record was joined from, by name of the input."""
        return {name: path for name, path in self.inputs(record).items() if path.parent.name == "block"}

    def blocks(self) -> dict[str, bytes]:
        """All blocks and their bulky rows, by path."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in (self.path / "results/block").glob("*/[!.]*")
        }

    def forget(self, *experiments: str) -> dict[str, bytes]:
        """Delete records and the blocks that they were joined from; return the records that stay."""
        for name in experiments:
            records = self.records_of(name)
            assert records, name
            for record in records:
                for folder in self._series(record).values():
                    shutil.rmtree(folder)
                record.unlink()
        return self.records()

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{file} does not contain {old!r}"
        path.write_text(text.replace(old, new, 1))

    def spoil(self, file: Path) -> None:
        """Change a file's last byte behind the back of the planner, which knows it by size and time."""
        # Whoever plans has every file read that was not known yet, and remembers it.
        command = [sys.executable, "-m", "snakemake", "-n", "--configfile", *self.OVERLAYS]
        subprocess.run(command, cwd=self.path, check=True, capture_output=True, timeout=PATIENCE)
        state, content = file.stat(), file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    def copy(self, path: Path) -> "Checkout":
        """A copy of this checkout with everything that was built, times kept, where no snakemake runs."""
        shutil.copytree(self.path, path, symlinks=True, ignore=_without_locks)
        return Checkout(path)


def _without_locks(folder: str, names: list[str]) -> list[str]:
    return names if folder.endswith("/.snakemake/locks") else []


def clone(path: Path) -> Checkout:
    """A checkout of the files that git tracks or would track, without results."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if not source.exists() and not source.is_symlink():
            continue
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        shutil.copy2(source, target, follow_symlinks=False)
    return Checkout(path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """The finished tiny study, one for all processes that run tests: to read; `study` is one to write to.

    Where `ABLATIONS_TINY` names a checkout, what was built there is not built again if it is fresh.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder
    checkout = Checkout(folder / "tiny" / "study")
    with FileLock(folder / "tiny.lock", timeout=PATIENCE):
        if not checkout.path.exists():
            making = folder / "making" / "study"
            if "ABLATIONS_TINY" in os.environ:
                Checkout(Path(os.environ["ABLATIONS_TINY"])).copy(making)
            making = clone(making)
            done = making.snakemake(*MADE)
            assert done.code == 0, done.output
            making.path.parent.rename(checkout.path.parent)
    return checkout


@pytest.fixture
def study(finished, tmp_path) -> Checkout:
    """A copy of the finished tiny study, free to edit."""
    return finished.copy(tmp_path / "study")
