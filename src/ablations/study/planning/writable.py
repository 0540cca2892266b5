"""Folders that a run will write to, tried before it starts."""

import os
from collections.abc import Iterable
from pathlib import Path

from ablations.study.errors import UserError
from ablations.study.planning.jobs import Job
from ablations.study.planning.stages import RESULTS

_SNAKEMAKE = Path(".snakemake")


def require_writable(jobs: Iterable[Job]) -> None:
    """Check that the folders of results that are missing can be written to.

    Snakemake removes old outputs before a job starts, and ends with a traceback where it cannot.

    Raises:
        UserError: a folder is on a read-only disk, or belongs to somebody else.
    """
    for folder in dict.fromkeys(_existing(job.path.parent) for job in jobs if not job.path.exists()):
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"{folder}: cannot be written to (a read-only disk, or no permission); make it writable,"
                " then run the same command again"
            )


def require_folders() -> None:
    """Check that where results, logs and the paper go there are folders, or nothing yet.

    Raises:
        UserError: there is a link that leads nowhere, or a file.
    """
    made = [*map(Path, ("logs", "benchmarks", "paper", "paper/tables", "paper/figures")), _SNAKEMAKE, RESULTS]
    found = RESULTS.iterdir() if RESULTS.is_dir() else ()
    for folder in (*made, *(path for path in found if path.is_symlink())):
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"{folder}: a link to {folder.readlink()}, which is not there; make it, or remove the link"
            )
    for folder in made:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file where a folder belongs; move it away")


def require_room_for_snakemake() -> None:
    """Check that Snakemake can write its own notes, without which it does not even plan.

    Raises:
        UserError: it cannot.
    """
    if not os.access(_existing(_SNAKEMAKE), os.W_OK):
        raise UserError(
            f"{_SNAKEMAKE}: cannot be written to, and Snakemake plans nothing without it; `python -m"
            " ablations.study status` says of a study that is only to be read what is fresh and what is due"
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
