"""Run a panel in a process of its own, and go on without an entry that takes the process down.

The process reports which entry it works on. Where it ends without a word (killed for memory, a fault in a
library), that entry is named and left out, the others are measured, and it is tried once more, alone. The
receipt is written when all is done.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablations.core.errors import UserError, fail, one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.panel import REPORT, PanelFile, read_panel


@dataclass
class Attempt:
    """How a process ended.

    Attributes:
        status: Exit status; negative for a signal.
        at: Digest of the entry that it worked on when it ended; None where it was none. Of several ranks at
            work, that of the one that began first: the others wait for it.
        failures: Error of each entry that failed on its own, by digest.
        finished: Whether it did, or failed to do, all that it was asked for.
    """

    status: int
    at: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    finished: bool = False


class Supervisor:
    """Starts the processes of a panel.

    Args:
        path: File of the panel.
        launcher: Words before the interpreter that start a process of several ranks.
        receipts: Receipts of the panels that made inputs.

    Attributes:
        panel: What is to be done.
        deaths: Digests of the entries that took their process down, alone too.
    """

    def __init__(self, path: Path, launcher: str = "", receipts: Sequence[Path] = ()) -> None:
        self.panel: PanelFile = read_panel(path)
        self._path = path
        self._launcher = shlex.split(launcher)
        self._receipts = ["--receipts", *map(str, receipts)] if receipts else []
        self.deaths: list[str] = []
        self._labels = {entry.digest: entry.label or entry.digest for entry in self.panel.entries}
        self._process: subprocess.Popen | None = None
        self._stopped: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> dict[str, str]:
        """Do the panel's work; return the error of each entry that is not done, by digest.

        Raises:
            UserError: the process ended while it worked on no entry.
        """
        failures: dict[str, str] = {}
        killers: list[str] = []
        while {*failures, *killers} < set(self._labels):
            attempt = self._attempt("--without", [*failures, *killers])
            failures |= attempt.failures
            if attempt.at is None:
                self._require_finished(attempt)
                break
            killers.append(attempt.at)
            print(f"{self._died(attempt)}; the others go on without it", file=sys.stderr, flush=True)
        for digest in killers:
            print(f"trying {self._labels[digest]} alone", file=sys.stderr, flush=True)
            attempt = self._attempt("--only", [digest])
            failures |= attempt.failures
            if attempt.at is not None:
                self.deaths.append(digest)
                failures[digest] = f"{self._died(attempt)}, alone too; give it more memory, or change it"
            else:
                self._require_finished(attempt)
        return failures

    def _attempt(self, option: str, digests: list[str]) -> Attempt:
        words = [word for digest in digests for word in (option, digest)]
        command = [
            *self._launcher,
            sys.executable,
            "-m",
            self.panel.module,
            "--panel",
            str(self._path),
            *words,
            *self._receipts,
        ]
        prefix = f".{self._path.stem}."
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=prefix, suffix=".tmp") as lines:
            self._process = subprocess.Popen(command, env={**os.environ, REPORT: lines.name})
            if self._stopped is not None:
                self._process.terminate()
            status = self._process.wait()
            self._process = None
            if self._stopped is not None:
                raise SystemExit(128 + self._stopped)
            text = Path(lines.name).read_text(encoding="utf-8")
        return read_report(text, status)

    def _require_finished(self, attempt: Attempt) -> None:
        if not attempt.finished:
            raise UserError(
                f"the process of this panel ended at what all its jobs share ({_ended(attempt)}); its error,"
                " if it gave one, is above; finished blocks and results are kept"
            )

    def _died(self, attempt: Attempt) -> str:
        return f"{self._labels[attempt.at or '']} took its process down ({_ended(attempt)})"

    def _stop(self, number: int, frame: object) -> None:
        """End the process that runs, and blame nobody: what it has finished is kept."""
        # Nothing is waited for here: the handler runs inside the wait for the process.
        self._stopped = number
        if self._process is not None:
            self._process.terminate()


def read_report(text: str, status: int) -> Attempt:
    """What a process of exit status `status` reported of itself, a line of JSON each (`panel.report`)."""
    attempt = Attempt(status)
    at_work: dict[str, str] = {}
    for line in text.splitlines():
        content = json.loads(line)
        if "failed" in content:
            attempt.failures[content["failed"]] = content["message"]
        elif "finished" in content:
            attempt.finished = True
        else:
            at_work.pop(content["process"], None)
            if content["at"] is not None:
                at_work[content["process"]] = content["at"]
    attempt.at = next(iter(at_work.values()), None)
    return attempt


def _ended(attempt: Attempt) -> str:
    if attempt.status < 0:
        return f"signal {signal.Signals(-attempt.status).name}"
    return f"exit status {attempt.status}"


def main() -> None:
    """Parse the command line and run the panel."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.core.supervise",
        description=__doc__,
        epilog="example: python -m ablations.core.supervise --panel results/panel/DIGEST.json --out RECEIPT",
    )
    parser.add_argument("--panel", type=Path, required=True, help="file of the panel")
    parser.add_argument("--out", type=Path, required=True, help="receipt to write when all is done")
    parser.add_argument("--launcher", default="", help="what starts a process of several ranks (srun ...)")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="of the panels that made inputs")
    parser.add_argument(
        "--passes-on",
        choices=("nothing", "errors", "all"),
        default="nothing",
        help="failures of entries with which the receipt is written, so that what needs their results fails"
        " instead: errors of their own, or the ends of their processes too",
    )
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        supervisor = Supervisor(arguments.panel, arguments.launcher, arguments.receipts)
        failures = supervisor.run()
        # An experiment has several entries: its seeds, and the measures of each.
        labels = {entry.digest: entry.label or entry.digest for entry in supervisor.panel.entries}
        lines = {digest: f"{labels[digest]}: {message}" for digest, message in failures.items()}
        for line in lines.values():
            print(f"error: {line}", file=sys.stderr, flush=True)
        passed = {"nothing": set(), "errors": set(lines) - set(supervisor.deaths), "all": set(lines)}
        if set(lines) - passed[arguments.passes_on]:
            names = dict.fromkeys(labels[digest] for digest in lines)
            fail(f"not done: {', '.join(names)}; all else of this panel is")
        write_text(arguments.out, json.dumps({"failed": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
