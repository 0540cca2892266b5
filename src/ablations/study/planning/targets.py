"""What a command line of Snakemake asks for."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator

from ablations.study.errors import UserError
from ablations.study.planning.jobs import Job
from ablations.study.planning.rows import Row
from ablations.study.planning.stages import RESULTS, SECTION

_FORCING = {"-f", "--force", "-F", "--forceall", "-R", "--forcerun"}


def require_free_ids(rows: Iterable[Row], taken: Callable[[str], bool]) -> None:
    """Check that no experiment is called like a rule: as a target it would be two things.

    Args:
        rows: Experiments.
        taken: Whether a rule has a name.

    Raises:
        UserError: one is.
    """
    for row in rows:
        if taken(row.experiment.id):
            raise UserError(
                f"{row.experiment.method}.ablations.{row.experiment.id}: this id is the name of a rule of the"
                " workflow; choose another"
            )


def require_own_paths(modified: Callable[[str], str]) -> None:
    """Check that a workflow that includes this one as a module leaves its files where they are.

    Args:
        modified: What becomes of a rule's path.

    Raises:
        UserError: it moves them, which the jobs are not told.
    """
    for path in (f"{RESULTS}/record", SECTION):
        if modified(path) != path:
            raise UserError(
                f"prefix: the files of this module keep their paths ({path}, not {modified(path)}); leave"
                " 'prefix' and 'replace_prefix' out, and run it in a folder of its own (--directory)"
            )


def named_results(
    command: Iterable[str], jobs: Iterable[Job], finished: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Finished results that a command line asks for by their paths.

    Args:
        command: Command line of Snakemake.
        jobs: Planned jobs.
        finished: Digests of those that are finished.

    Yields:
        What the command line calls a result, and its path relative to the working directory.
    """
    known = {str(job.path) for job in jobs if job.digest in finished}
    for word in dict.fromkeys(command):
        path = os.path.relpath(word) if word else word
        if path in known:
            yield word, path


def reports(command: Iterable[str]) -> bool:
    """Whether Snakemake is asked for its report of what is finished, which runs no job."""
    words = [word.partition("=")[0] for word in command]
    return "--report" in words and not any(word.startswith("--report-") for word in words)


def forces(command: Iterable[str]) -> bool:
    """Whether Snakemake is asked to run again what is finished."""
    words = [word.partition("=")[0] for word in command]
    return any(word in _FORCING for word in words)
