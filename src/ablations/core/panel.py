"""Panels: one process that does the missing work of several jobs side by side, from one loaded model.

A panel's file names its entries and what each of them lacks; it is written when the run is planned and never
changes. A process does what it says, whatever has appeared meanwhile, and skips what is there by then. An
entry that fails is left out, and the others go on.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from platform import node
from typing import Any, Generic, TypeVar

from pydantic import Field, ValidationError

from ablations.core.artefact import open_artefact
from ablations.core.block import Span, block_path, cover, crash_path
from ablations.core.contract import Contract
from ablations.core.errors import UserError, fail, one_line, one_line_errors, to_mend
from ablations.core.job import Run, read_job, require_code, require_inputs, require_pins
from ablations.core.record import Environment, Outcome, Record, digests_of, write_record

Spec = TypeVar("Spec", bound=Contract)

REPORT = "ABLATIONS_REPORT"
"""Environment variable that names the file to which a process reports which entry it works on."""


class Entry(Contract):
    """A job of a panel, and what it lacks."""

    digest: str
    """Digest of the job, whose spec lies in the folder of specs."""
    label: str
    """Id of the experiment."""
    out: str
    """Folder of the blocks of a series; for another job its result."""
    spans: tuple[Span, ...] = ()
    """Missing blocks of a series; empty for another job."""


class PanelFile(Contract):
    """What a panel does; its file is named by the digest of this."""

    rule: str
    """Rule of its jobs."""
    module: str
    """Module that does them."""
    entries: tuple[Entry, ...] = Field(min_length=1)
    """Its jobs."""


def read_panel(path: Path) -> PanelFile:
    """Read a panel's file.

    Raises:
        UserError: the file is missing or not a panel.
    """
    try:
        return PanelFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such panel; run snakemake, which plans it") from None
    except ValidationError as error:
        raise UserError(f"{path}: not a panel ({one_line(error)}); delete it and run snakemake") from None


class Member(Generic[Spec]):
    """A job of a panel while it runs.

    Attributes:
        run: The job. `run.out` is the folder of blocks, or the result of a job that has no blocks.
        spec: What it does.
        label: Id of the experiment.
        spans: Missing blocks of a series; empty for another job.
        failure: Why it does not go on; None while it does.
    """

    def __init__(self, run: Run[Spec], spans: Sequence[Span] = ()) -> None:
        self.run = run
        self.spec: Spec = run.spec
        self.label = run.label or run.job.digest
        self.failure: str | None = None
        self.spans = tuple(spans)
        self._samples: dict[int, tuple[Any, dict | None]] = {}
        self._crashed = False
        self._seconds = 0.0
        self._since: float | None = None
        self._block_type: type[Record] = Record
        self._environment: Callable[[], Environment] | None = None
        self._totals: Callable[[], Contract] | None = None

    @property
    def active(self) -> bool:
        """Whether it neither failed nor crashed."""
        return self.failure is None and not self._crashed

    def wanted(self) -> list[int]:
        """Numbers of the items that it still lacks, looked up anew; none once it failed or crashed.

        A block is written whole: where a part of it has appeared meanwhile, all of it is still lacking.
        """
        if not self.active:
            return []
        spans, crashed = cover(self.run.out)
        there = {number for first, end in spans for number in range(first, end)}
        return [
            number
            for first, end in self.spans
            if (crashed is None or end <= crashed) and not there.issuperset(range(first, end))
            for number in range(first, end)
            if number not in self._samples
        ]

    def describes(
        self,
        block_type: type[Record],
        environment: Callable[[], Environment],
        totals: Callable[[], Contract],
    ) -> None:
        """Say of what kind its blocks are, and what each of them holds beside its samples.

        Args:
            block_type: Contract of a block.
            environment: Where and with what a block was measured; its seconds are filled in here.
            totals: Facts of the job at the time a block is written.
        """
        self._block_type, self._environment, self._totals = block_type, environment, totals

    def add(self, number: int, sample: Contract, row: dict | None = None) -> None:
        """Take in the result of one item; the block that it completes is written."""
        self._samples[number] = (sample, row)
        for first, end in self.spans:
            if first <= number < end and all(item in self._samples for item in range(first, end)):
                self._write((first, end))

    def crash(self, number: int, outcome: Outcome) -> None:
        """End the job with a crash of the measured method at item `number`: a result, not an error."""
        for first, end in self.spans:
            items = range(first, min(end, number))
            if first <= number < end and items and all(item in self._samples for item in items):
                self._write((first, number))
        self._crashed = True
        self._samples.clear()
        write_record(crash_path(self.run.out, number), self._block((), outcome, None))

    def fail(self, reason: str) -> None:
        """End the job with an error of its own; the other jobs of the panel go on."""
        self.failure = " ".join(reason.split())
        self._samples.clear()
        report(failed=self.run.job.digest, message=self.failure)
        print(f"error: {self.label}: {self.failure}", file=sys.stderr, flush=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work on this job: its seconds count, and an error that the user can mend ends it alone.

        Where the context ends with another exception or the process ends, this job has done it. The clock of
        a job without blocks starts here, not with its panel.
        """
        report(at=self.run.job.digest)
        if not self.spans:
            self.run = Run(self.run.job, self.run.out, self.run.label)
        self._since = time.perf_counter()
        try:
            yield
        except Exception as error:
            reason = to_mend(error, self.run.out)
            if reason is None:
                raise
            self.fail(reason)
        self._seconds += time.perf_counter() - self._since
        self._since = None
        report(at=None)

    def _write(self, span: Span) -> None:
        items = [self._samples.pop(number) for number in range(*span)]
        rows = [row for _, row in items if row is not None]
        assert len(rows) in (0, len(items)), "either all items of a block have a row, or none"
        assert self._totals is not None, "describes() comes first"
        block = self._block(tuple(sample for sample, _ in items), Outcome(status="ok"), self._totals())
        write_record(block_path(self.run.out, span), block, rows or None)

    def _block(self, samples: tuple, outcome: Outcome, totals: Contract | None) -> Record:
        assert self._environment is not None, "describes() comes first"
        # Written while at work, a block has the seconds since the one before it.
        now = time.perf_counter()
        seconds = self._seconds + (0.0 if self._since is None else now - self._since)
        self._seconds = 0.0
        if self._since is not None:
            self._since = now
        environment = self._environment().model_copy(update={"seconds": seconds})
        return self._block_type(
            label=self.run.label,
            module=self.run.job.module,
            spec=self.spec,
            outcome=outcome,
            samples=samples,
            totals=totals,
            environment=environment,
            digests=digests_of(self.run),
        )


class Panel(Generic[Spec]):
    """The jobs that one process does side by side; all of them use one model and compute alike.

    Attributes:
        members: The jobs.
    """

    def __init__(self, members: Sequence[Member[Spec]]) -> None:
        self.members = list(members)

    @property
    def first(self) -> Run[Spec]:
        """A job whose model and way of computing are those of all."""
        return self.members[0].run

    @property
    def active(self) -> list[Member[Spec]]:
        """Jobs that neither failed nor crashed."""
        return [member for member in self.members if member.active]

    def due(self) -> Iterator[Member[Spec]]:
        """Jobs without blocks whose results are not there, each looked up when its turn comes."""
        for member in self.members:
            if member.active and not _is_whole(member.run.out):
                yield member


def _is_whole(result: Path) -> bool:
    """Whether a result is there; of an artefact, undamaged."""
    if not result.exists() or result.name != "manifest.json":
        return result.exists()
    try:
        open_artefact(result)
    except UserError:
        return False
    return True


def open_panel(
    path: Path,
    spec_type: type[Spec],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    receipts: Sequence[Path] = (),
) -> Panel[Spec]:
    """The jobs of a panel's file; one whose input could not be made has failed.

    Args:
        path: The file.
        spec_type: Contract of their specs.
        only: Digests of the jobs to do; empty for all.
        without: Digests of jobs to leave out.
        receipts: Receipts of the panels that made inputs of the jobs.

    Raises:
        UserError: the panel or a spec is damaged, or code or a pinned version is not what was planned.
    """
    members, checked = [], set()
    for entry in read_panel(path).entries:
        if entry.digest in without or (only and entry.digest not in only):
            continue
        # The folder of specs lies beside that of panels.
        spec_path = path.parent.parent / "spec" / f"{entry.digest}.json"
        job = read_job(spec_path, spec_type)
        if job.code_digest not in checked:
            require_pins(job.pins)
            require_code(job, spec_path)
            checked.add(job.code_digest)
        member: Member[Spec] = Member(Run(job, Path(entry.out), entry.label or None), entry.spans)
        try:
            require_inputs(job, receipts)
        except UserError as error:
            member.fail(str(error))
        members.append(member)
    return Panel(members)


def report(**content: Any) -> None:
    """Append a line to the report that a supervisor reads; without a supervisor nothing is written.

    Args:
        content: ``at``: digest of the entry that this process works on from now on, None for none. ``failed``
            and ``message``: digest of an entry that failed on its own, and why. ``finished``: True once all
            that this process was asked for is done or has failed.
    """
    if name := os.environ.get(REPORT):
        line = json.dumps({"process": f"{node()} {os.getpid()}", **content})
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)


def main(module: str, spec_type: Any, work: Callable[[Panel[Any]], None], about: str) -> None:
    """Parse the command line of a process that does a panel's jobs, and do them.

    Args:
        module: Module name, as ``python -m`` takes it.
        spec_type: Contract of the specs.
        work: Does the jobs; what it raises ends all of them, unless a member is at work.
        about: What the jobs do, for ``--help``.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        epilog=f"example: python -m {module} --panel results/panel/DIGEST.json",
    )
    parser.add_argument("--panel", type=Path, required=True, help="file of the panel, written for the study")
    parser.add_argument("--only", action="append", default=[], metavar="DIGEST", help="do this job of it")
    parser.add_argument("--without", action="append", default=[], metavar="DIGEST", help="leave this job out")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="of the panels that made inputs")
    arguments = parser.parse_args()
    with one_line_errors(arguments.panel):
        panel = open_panel(arguments.panel, spec_type, arguments.only, arguments.without, arguments.receipts)
        if panel.active:
            work(panel)
        report(finished=True)
        failed = [member.label for member in panel.members if member.failure is not None]
        if failed:
            fail(
                f"{len(failed)} of {len(panel.members)} failed: {', '.join(failed)} (their errors are above)"
            )
