"""Artefacts whose files are no longer those that were written."""

import json
from collections.abc import Iterable
from pathlib import Path

from ablations.study.files import write_text
from ablations.study.planning.hashes import Hashes
from ablations.study.planning.jobs import Job
from ablations.study.planning.stages import DAMAGE


def find_damage(jobs: Iterable[Job]) -> dict[str, str]:
    """Artefacts with a file that is missing or differs from its manifest's hash.

    Files of known size and time are not read again; what a job has not made yet is not damaged.

    Args:
        jobs: Planned jobs.

    Returns:
        By digest of the job that makes it, the first damaged file.
    """
    found = {}
    for job in jobs:
        if job.path.name == "manifest.json" and job.path.exists():
            damaged = _damaged_file(job.path, job.sources.hashes)
            if damaged is not None:
                found[job.digest] = str(damaged)
    return found


def note_damage(job: Job, file: str) -> Path:
    """Path of a note on a damaged artefact, newer than its manifest, which makes its producer stale."""
    note = Path(DAMAGE.format(digest=job.digest))
    if not note.exists() or note.stat().st_mtime_ns <= job.path.stat().st_mtime_ns:
        write_text(note, json.dumps({"damaged": file}) + "\n")
    return note


def _damaged_file(manifest: Path, hashes: Hashes) -> Path | None:
    try:
        expected = dict(json.loads(manifest.read_bytes())["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return manifest
    for name, digest in expected.items():
        file = manifest.parent / name
        if not file.is_file() or hashes.sha256(file) != digest:
            return file
    return None
