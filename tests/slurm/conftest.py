"""A small study through a real Slurm."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.slurm.cluster import PACKAGES, Cluster, Job, missing_programs
from tests.workflow.conftest import TINY, Checkout, Finished, clone

OVERLAY = "tests/slurm/study.yaml"
# A cluster's own settings are for jobs of hours.
QUICK = ["--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "20"]
# The tests' cluster keeps no accounts.
QUICK += ["--slurm-status-command", "squeue"]


@dataclass(frozen=True)
class Study(Checkout):
    """A copy of the repository whose jobs run on the cluster."""

    def start(self, *targets: str, flags: Sequence[str] = ()) -> subprocess.Popen:
        """Start snakemake with the profile `slurm`."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *QUICK, *flags]
        return subprocess.Popen(
            [*command, "--configfile", TINY, OVERLAY, "--", *targets],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, *targets: str, flags: Sequence[str] = ()) -> Finished:
        """Run snakemake with the profile `slurm` to its end."""
        head = self.start(*targets, flags=flags)
        output = head.communicate()[0]
        return Finished(head.returncode, output)

    def ask(self, *arguments: str) -> str:
        """Ask the study's command line."""
        command = [sys.executable, "-m", "ablations.study", *arguments, "--configfile", TINY, OVERLAY]
        environment = os.environ | {"PYTHONPATH": str(self.path / "src")}
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def record(self, experiment: str) -> Path:
        """Path of an experiment's record."""
        shown = self.ask("show", experiment).splitlines()
        return self.path / next(line.split()[1] for line in shown if line.startswith("record"))

    def forget(self, *experiments: str) -> None:
        """Delete experiments' records."""
        for name in experiments:
            self.record(name).unlink()

    def records(self) -> dict[str, bytes]:
        """All records."""
        return {path.name: path.read_bytes() for path in (self.path / "results/record").glob("*.json")}

    def copy(self, path: Path) -> "Study":
        return Study(super().copy(path).path)


class Measured(NamedTuple):
    """A study that ran through the cluster, and its jobs."""

    study: Study
    jobs: list[Job]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm."""
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
    """A checkout whose profile is edited for the tests' cluster, as docs/cluster.md says."""
    study = Study(clone(tmp_path_factory.mktemp("slurm") / "study").path)
    profile = "profiles/slurm/config.yaml"
    account = next(
        line for line in (study.path / profile).read_text().splitlines() if "SITE: account" in line
    )
    study.replace(profile, account + "\n", "")
    return study


@pytest.fixture(scope="session")
def measured(cluster, site) -> Measured:
    """The study, run through the cluster."""
    done = site.submit("paper/ablation.tex")
    assert done.code == 0, done.output
    return Measured(site, cluster.jobs())


@pytest.fixture
def study(measured, cluster, tmp_path) -> Iterator[Study]:
    """A copy of the measured study; its jobs are gone at the end."""
    yield measured.study.copy(tmp_path / "study")
    cluster.cancel()
