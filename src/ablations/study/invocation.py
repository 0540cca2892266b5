"""Command lines of Snakemake: what they ask for, and what must hold before they run."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ablations.core.errors import UserError
from ablations.study.planning.jobs import DIGEST_LENGTH, Job, Row
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import RESULTS, SECTION

_FORCING = {"-f", "--force", "-F", "--forceall", "-R", "--forcerun"}
_SNAKEMAKE = Path(".snakemake")


def require_idle(command: str) -> None:
    """Check that Snakemake does not run in the working directory.

    Args:
        command: What may not run beside it.

    Raises:
        UserError: a run has locked the folder.
    """
    if any((_SNAKEMAKE / "locks").glob("*")):
        raise UserError(
            f"{command}: a snakemake run works in this folder; wait for its end, or `snakemake --unlock` if"
            " none does"
        )


def require_free_ids(rows: Iterable[Row], is_rule: Callable[[str], bool]) -> None:
    """Check that no experiment has the name of a rule, which would make it an ambiguous target.

    Args:
        rows: Experiments.
        is_rule: Whether a name is that of a rule.

    Raises:
        UserError: an id is the name of a rule.
    """
    for row in rows:
        if is_rule(row.experiment.id):
            raise UserError(
                f"{row.experiment.method}.ablations.{row.experiment.id}: this id is the name of a rule of the"
                " workflow; choose another"
            )


def require_unmoved_paths(modify_path: Callable[[str], str]) -> None:
    """Check that a workflow that includes this one as a module does not move its files.

    Jobs read and write paths of their specs, which such a move does not change.

    Args:
        modify_path: Path that Snakemake gives the file of a rule.

    Raises:
        UserError: the including workflow sets a prefix.
    """
    for path in (f"{RESULTS}/record", SECTION):
        if modify_path(path) != path:
            raise UserError(
                f"prefix: the files of this module keep their paths ({path}, not {modify_path(path)}); leave"
                " 'prefix' and 'replace_prefix' out, and run it in a folder of its own (--directory)"
            )


def named_results(
    command: Iterable[str], jobs: Iterable[Job], finished: Collection[str]
) -> Iterator[tuple[str, Job]]:
    """Results that a command line asks for by their paths and that no rule makes there.

    They are those that are finished, and those of panels, whose rules make receipts.

    Args:
        command: Command line of Snakemake.
        jobs: Planned jobs.
        finished: Digests of the finished ones.

    Yields:
        Word of the command line, and the job of the result.
    """
    results = {
        str(job.path): job
        for job in jobs
        if job.digest in finished or (job.stage.panel and not job.stage.moves)
    }
    for word in dict.fromkeys(command):
        path = os.path.relpath(word) if word else word
        if path in results:
            yield word, results[path]


def asks_for_report(command: Iterable[str]) -> bool:
    """Whether Snakemake is asked for a report of finished results, which runs no job."""
    words = [word.partition("=")[0] for word in command]
    return "--report" in words and not any(word.startswith("--report-") for word in words)


def forces_jobs(command: Iterable[str]) -> bool:
    """Whether Snakemake is asked to run finished jobs again."""
    words = [word.partition("=")[0] for word in command]
    return any(word in _FORCING for word in words)


def require_planned(plan: Plan, command: Iterable[str]) -> None:
    """Check that a submitted job, or all jobs of a submitted panel, are still part of the plan.

    Args:
        plan: Plan of the configuration that the job was submitted with.
        command: Command line of the job, which names digests.

    Raises:
        UserError: the code or the pinned versions changed since the job was submitted, or the file of a panel
            is gone.
    """
    for name, digest in re.findall(rf"\b(digest|panel)=([0-9a-f]{{{DIGEST_LENGTH}}})\b", " ".join(command)):
        if name == "panel":
            plan.panel(digest)
        elif digest not in plan.jobs:
            raise UserError(
                f"results/spec/{digest}.json: the code or constraints.txt changed while this job waited;"
                " run snakemake again"
            )


def require_writable(jobs: Iterable[Job]) -> None:
    """Check that the folders of missing results can be written to.

    Snakemake removes old outputs before a job starts, and ends with a traceback where it cannot.

    Raises:
        UserError: a folder is on a read-only disk, or belongs to another user.
    """
    # The blocks of a series are written to its own folder.
    folders = (job.path if job.stage.has_blocks else job.path.parent for job in jobs if not job.done)
    for folder in dict.fromkeys(map(_existing, folders)):
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"{folder}: cannot be written to (a read-only disk, or no permission); make it writable,"
                " then run the same command again"
            )


def require_folders() -> None:
    """Check that the paths of results, logs and the paper are folders or do not exist.

    Raises:
        UserError: a path is a file, or a link that leads nowhere.
    """
    outputs = ("logs", "benchmarks", "paper", "paper/tables", "paper/figures")
    folders = [*map(Path, outputs), _SNAKEMAKE, RESULTS]
    entries = RESULTS.iterdir() if RESULTS.is_dir() else ()
    for folder in (*folders, *(path for path in entries if path.is_symlink())):
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"{folder}: a link to {folder.readlink()}, which is not there; make it, or remove the link"
            )
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file where a folder belongs; move it away")


def require_writable_metadata() -> None:
    """Check that Snakemake can write to its folder, which it needs even to plan.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not os.access(_existing(_SNAKEMAKE), os.W_OK):
        raise UserError(
            f"{_SNAKEMAKE}: cannot be written to, and Snakemake plans nothing without it; `python -m"
            " ablations.study status` says of a study that is only to be read what is fresh and what is due"
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
