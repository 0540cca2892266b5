"""Freshness of results: which are finished, which are damaged, which must be made, and times of files."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ablations.core.errors import UserError
from ablations.core.files import write_text
from ablations.study.planning.digests import Hashes
from ablations.study.planning.jobs import Job, merge
from ablations.study.planning.stages import (
    BENCHMARK_SUMMARY,
    DAMAGE,
    FIGURES,
    MACROS,
    PAPER_SOURCES,
    PROVENANCE,
    SECTION,
    STAMP,
    SUMMARY,
    TABLES,
)


class Inputs(NamedTuple):
    """Input files of a job, by name.

    Attributes:
        named: Files whose names tell their content; Snakemake ignores their times.
        rebuilt: Files that are newer than the result when the job must run again.
    """

    named: dict[str, str]
    rebuilt: dict[str, str]


def find_damage(jobs: Iterable[Job]) -> dict[str, str]:
    """Damaged artefacts: a file is missing, or its hash is not the one in the manifest.

    An artefact that was not made yet is not damaged.

    Args:
        jobs: Planned jobs.

    Returns:
        First damaged file of each damaged artefact, by the digest of the job that makes it.
    """
    damage = {}
    for job in jobs:
        if job.path.name == "manifest.json" and job.path.exists():
            damaged = _damaged_file(job.path, job.sources.hashes)
            if damaged is not None:
                damage[job.digest] = str(damaged)
    return damage


def finished_jobs(jobs: Iterable[Job], damage: Collection[str]) -> frozenset[str]:
    """Digests of the jobs whose results exist and are undamaged.

    No rule makes such a result. To Snakemake it is a source file, which it never finds stale, makes anew when
    forced, or deletes after a failure.

    Args:
        jobs: Planned jobs.
        damage: Digests of the jobs whose artefacts are damaged.
    """
    return frozenset(job.digest for job in jobs if job.done and job.digest not in damage)


def due_jobs(wanted: Iterable[Job], damage: Mapping[str, str]) -> dict[str, Job]:
    """The jobs that a run would start, by digest; a job comes after its inputs.

    Args:
        wanted: Jobs whose results are asked for.
        damage: First damaged file of each damaged artefact, by the digest of the job that makes it.
    """
    due: dict[str, Job] = {}
    for job in wanted:
        # A damaged artefact is made again even where every result above it is finished.
        damaged = [needed for digest, needed in job.with_inputs().items() if digest in damage]
        for needed in (*damaged, job):
            _add_due(needed, damage, due)
    return due


def job_inputs(job: Job, damage: dict[str, str], file_of: Callable[[Job], str]) -> Inputs:
    """Spec and input artefacts of a job.

    A finished job has its spec as its only input: Snakemake's report asks for the inputs of finished jobs,
    whose artefacts may be gone.

    Args:
        job: A planned job.
        damage: First damaged file of each damaged artefact, by the digest of the job that makes it.
        file_of: The file that Snakemake waits for where it needs a job's result.
    """
    named, rebuilt = {"spec": str(job.spec_path)}, {}
    if job.digest in damage:
        rebuilt["damage"] = str(_damage_note(job, damage[job.digest]))
    elif job.done:
        return Inputs(named, rebuilt)
    for name, artefact in job.inputs.items():
        kind = rebuilt if artefact.digest in damage else named
        kind[name] = file_of(artefact)
    # Snakemake does not look past a job that already has a reason to run, and ignores changes of `ancient`
    # inputs. So a damaged artefact becomes a plain input of every missing job above it, even of those that
    # use it only indirectly.
    direct = {artefact.digest for artefact in job.inputs.values()}
    for digest, artefact in job.with_inputs().items():
        if digest in damage and digest not in {job.digest, *direct}:
            rebuilt[f"rebuilt_{digest}"] = file_of(artefact)
    return Inputs(named, rebuilt)


def reset_future_times(jobs: Collection[Job], finished: Collection[str], root: Path) -> None:
    """Set the times of files that lie in the future to now.

    Snakemake refuses, and deletes, a result that is older than an input of its job.

    Args:
        jobs: Planned jobs.
        finished: Digests of the finished ones.
        root: Folder of the Snakefile.

    Raises:
        UserError: an input of a missing result has a time in the future that cannot be set.
    """
    for job in jobs:
        if job.digest not in finished:
            for file in (job.spec_path, job.path, *(artefact.path for artefact in job.inputs.values())):
                _reset_future_time(file)
    # In the order in which they are made, so that no file becomes older than its inputs. Errors are ignored:
    # a read-only copy of a study renders nothing.
    stamps = sorted(Path(STAMP).parent.glob("*.json"))
    sources = [root / name for name in PAPER_SOURCES]
    rendered = [SUMMARY, *TABLES, *FIGURES, MACROS, PROVENANCE, SECTION, BENCHMARK_SUMMARY]
    for file in (*sources, *(job.path for job in jobs), *stamps, *map(Path, rendered)):
        with suppress(UserError):
            _reset_future_time(file)


def _damaged_file(manifest: Path, hashes: Hashes) -> Path | None:
    """The manifest if it cannot be read, else its first file that is missing or has another hash."""
    try:
        expected = dict(json.loads(manifest.read_bytes())["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return manifest
    for name, digest in expected.items():
        file = manifest.parent / name
        if not file.is_file() or hashes.sha256(file) != digest:
            return file
    return None


def _damage_note(job: Job, file: str) -> Path:
    """Note on a damaged artefact, an input of its job: newer than the manifest, so that the job reruns."""
    note = Path(DAMAGE.format(digest=job.digest))
    if not note.exists() or note.stat().st_mtime_ns <= job.path.stat().st_mtime_ns:
        write_text(note, json.dumps({"damaged": file}) + "\n")
    return note


def _add_due(job: Job, damage: Mapping[str, str], due: dict[str, Job]) -> None:
    """Add a job whose result is missing or damaged to `due`, after the inputs that are due."""
    if job.digest in due or (job.done and job.digest not in damage):
        merge(due, {job.digest: job} if job.digest in due else {})
        return
    for artefact in job.inputs.values():
        _add_due(artefact, damage, due)
    due[job.digest] = job


def _reset_future_time(file: Path) -> None:
    """Set a time in the future to now: of the file, and of the link where the file is one."""
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
