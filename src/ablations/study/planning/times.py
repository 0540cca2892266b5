"""Times of files that lie in the future, as a fast clock leaves them."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ablations.study.errors import UserError
from ablations.study.planning.jobs import Job
from ablations.study.planning.stages import (
    BENCHMARK_SUMMARY,
    FIGURES,
    MACROS,
    PAPER_SOURCES,
    PROVENANCE,
    SECTION,
    STAMP,
    SUMMARY,
    TABLES,
)


def forget_future(jobs: Iterable[Job], finished: Iterable[str], root: Path) -> None:
    """Give files that are newer than now the time of now.

    Snakemake refuses what a job has made of a newer file, and deletes it.

    Args:
        jobs: Planned jobs.
        finished: Digests of those that are finished.
        root: Folder of the Snakefile.

    Raises:
        UserError: what a missing result is made of has such a time, and it cannot be changed.
    """
    done, results = set(finished), list(jobs)
    for job in results:
        if job.digest not in done:
            for file in (job.spec_path, job.path, *(artefact.path for artefact in job.inputs.values())):
                _forget(file)
    # What comes first is older. A copy that one may only look at renders nothing.
    stamps = sorted(Path(STAMP).parent.glob("*.json"))
    sources = [root / name for name in PAPER_SOURCES]
    rendered = [SUMMARY, *TABLES, *FIGURES, MACROS, PROVENANCE, SECTION, BENCHMARK_SUMMARY]
    for file in (*sources, *(job.path for job in results), *stamps, *map(Path, rendered)):
        with suppress(UserError):
            _forget(file)


def _forget(file: Path) -> None:
    """Set one file's time, and that of the link where it is one."""
    for follow in (True, False):
        try:
            if file.stat(follow_symlinks=follow).st_mtime > time.time():
                os.utime(file, follow_symlinks=follow)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"{file}: its time is in the future of this machine's clock, and cannot be set"
                f" ({error.strerror}); touch it as its owner, or correct the clock"
            ) from None
