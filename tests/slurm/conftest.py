"""A small study through a real Slurm."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
import torch

from ablations.lm.timing import device_lock
from tests.slurm.cluster import PACKAGES, Cluster, Job, missing_programs, tries
from tests.workflow.conftest import PATIENCE, TINY, Checkout, Finished, clone

# A cluster's own settings are for jobs of hours. The executor asks after these seconds, and waits 10 seconds
# longer each time until a job is done: with 4, one of 15 seconds is seen after 18; with 2, after 36.
QUICK = ["--slurm-init-seconds-before-status-checks", "4", "--latency-wait", "20"]
EVALUATE = "evaluate_sdtp"
# A job with a GPU takes no whole node.
SHARED = ["--config", 'resources={"gpu": 1}']


class Head:
    """A running snakemake. Its output goes to a file, which takes any length without a reader."""

    def __init__(self, command: Sequence[str], log: Path, temporary: Path | None = None) -> None:
        self._log = log
        environment = {**os.environ, "TMPDIR": str(temporary)} if temporary else None
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> Finished:
        """Wait for the end."""
        return Finished(self._process.wait(PATIENCE), self._log.read_text())

    def wait_for(self, text: str) -> None:
        """Wait until it prints a text."""
        for _ in tries(120):
            if text in self._log.read_text():
                return
        raise AssertionError(f"no {text!r} in 120 s:\n{self._log.read_text()}")

    def kill(self) -> None:
        """End it at once, and what it runs on this machine; jobs of the cluster stay."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass(frozen=True)
class Study(Checkout):
    """A copy of the repository whose jobs run on the cluster."""

    OVERLAYS: ClassVar[tuple[str, ...]] = (TINY, "tests/slurm/study.yaml")

    heads: list[Head] = field(default_factory=list)

    def start(
        self,
        *targets: str,
        flags: Sequence[str] = (),
        temporary: Path | None = None,
        quick: Sequence[str] = tuple(QUICK),
    ) -> Head:
        """Start snakemake with the profile `slurm`, if asked for with a temporary folder of its own."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *quick, *flags]
        command += ["--configfile", *self.OVERLAYS, "--", *targets]
        self.heads.append(Head(command, self.path / f"head-{len(self.heads)}.log", temporary))
        return self.heads[-1]

    def submit(self, *targets: str, flags: Sequence[str] = ()) -> Finished:
        """Run snakemake with the profile `slurm` to its end."""
        return self.start(*targets, flags=flags).finish()

    def stop(self) -> None:
        """Kill every snakemake that still runs: it would submit what is cancelled once more."""
        for head in self.heads:
            head.kill()

    def record(self, experiment: str) -> Path:
        """Path of an experiment's record, whether it is there or not."""
        shown = self.ask("show", experiment).splitlines()
        return self.path / next(line.split()[1] for line in shown if line.startswith("record"))

    def measured_again(self, after: int, jobs: Sequence[Job]) -> dict[str, list[str]]:
        """What the panels of jobs but the first so many did, as ``EXPERIMENT FIRST-END`` by rule."""
        found: dict[str, list[str]] = {}
        for job in jobs[after:]:
            panel = json.loads((self.path / f"results/panel/{job.name}.json").read_text())
            done = found.setdefault(job.rule, [])
            for entry in panel["entries"]:
                done += [f"{entry['label']} {first}-{end}" for first, end in entry["spans"]]
        return found

    def copy(self, path: Path) -> "Study":
        return Study(super().copy(path).path)


class Measured(NamedTuple):
    """A study that ran through the cluster, and its jobs."""

    study: Study
    jobs: list[Job]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("one Slurm on a host: run tests/slurm without pytest's -n", pytrace=False)
    if missing := missing_programs():
        pytest.fail(f"{missing[0]} is not installed; apt-get install {PACKAGES}", pytrace=False)
    if os.getuid() != 0:
        pytest.fail("Slurm needs root; run these tests in a container", pytrace=False)
    # Whoever ends the tests does not leave daemons behind.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))
    # A socket's path may have 107 characters; pytest's own folders are longer.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with Cluster(Path(folder)).running() as running:
            yield running
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Study:
    """A checkout with the profile as it is: its partition exists here, and nobody keeps accounts."""
    return Study(clone(tmp_path_factory.mktemp("slurm") / "study").path)


@pytest.fixture(scope="session")
def measured(cluster, site) -> Measured:
    """The study, run through the cluster."""
    try:
        done = site.submit("paper/ablation.tex")
    finally:
        site.stop()
    assert done.code == 0, done.output
    return Measured(site, cluster.jobs(site.path))


@contextmanager
def copied(measured: Measured, cluster: Cluster, folder: Path) -> Iterator[Study]:
    """A copy of the measured study; what it started is gone at the end."""
    copy = measured.study.copy(folder / "study")
    try:
        yield copy
    finally:
        copy.stop()
        cluster.cancel(copy.path)


@pytest.fixture
def study(measured, cluster, tmp_path) -> Iterator[Study]:
    """A copy of the measured study, free to edit."""
    with copied(measured, cluster, tmp_path) as copy:
        yield copy


@pytest.fixture(scope="session")
def unmeasured(measured, cluster, tmp_path_factory) -> Iterator[Study]:
    """A copy of the measured study without one record, where nothing runs."""
    with copied(measured, cluster, tmp_path_factory.mktemp("unmeasured")) as copy:
        copy.forget("A7")
        yield copy


class Background(NamedTuple):
    """Studies that mostly wait, each with the one head that it started. The first job of the others fails."""

    literal: Study
    hung: Study
    damaged: Study
    hungry: Study


@pytest.fixture(scope="session")
def background(measured, cluster, tmp_path_factory) -> Iterator[Background]:
    """Runs that mostly wait, all started at once, beside which others share the node."""
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(name) for name in Background._fields]
        found = Background(*(stack.enter_context(copied(measured, cluster, folder)) for folder in folders))
        for each in found:
            each.forget("A7")
        # Whoever holds a device's lock lets its jobs wait forever. Nobody else's lock is in this folder.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(folders[1]))
            stack.enter_context(device_lock(torch.device("cpu")))
        limit = ["--retries", "0", "--set-resources", f"{EVALUATE}:runtime=1"]
        found.hung.start("A7", flags=[*SHARED, *limit], temporary=folders[1])
        with (found.literal.path / "tests/slurm/study.yaml").open("a") as overlay:
            overlay.write("resources: {gpu: 1}\n")
        found.literal.start("A7", quick=())
        (weights,) = (found.damaged.path / "results/model").rglob("model.safetensors")
        # What planning sees is damaged is made anew; the job reads the bytes.
        found.damaged.spoil(weights)
        found.damaged.start("A7", flags=[*SHARED, "--retries", "0"])
        memory = ["--set-resources", f"{EVALUATE}:mem_mb=150*8**(attempt-1)"]
        memory += [f"{EVALUATE}:slurm_partition=short"]
        found.hungry.start("A7", flags=[*SHARED, *memory])
        yield found
