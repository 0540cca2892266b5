"""Results that no study in this folder needs any more."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ablations.study.errors import UserError
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import RESULTS

# What the workflow names by a job's digest, whatever follows it; hidden while it is written.
_NAMED = re.compile(rf"\.?([0-9a-f]{{{DIGEST_LENGTH}}})(\..*)?")
_FOLDERS = (RESULTS, Path("logs"), Path("benchmarks"))


def unneeded(plans: Iterable[Plan]) -> list[Path]:
    """What is named by a digest (specs, results, logs, notes on code) that the given studies do not need.

    What a killed job left half-written is needed by nobody, but the checkpoint of a training that is.

    Raises:
        UserError: Snakemake works here, and what is half-written may be its jobs'.
    """
    if any(Path(".snakemake/locks").glob("*")):
        raise UserError(
            "prune: a snakemake run works in this folder; wait for its end, or `snakemake --unlock` if"
            " none does"
        )
    needed = set()
    for plan in plans:
        needed.add(plan.config_path.stem)
        for job in plan.jobs.values():
            needed |= {job.digest, job.file.code_digest}
    found = []
    for path in sorted(path for folder in _FOLDERS for path in folder.glob("*/*")):
        match = _NAMED.fullmatch(path.name)
        half_written = path.name.startswith(".") and path.suffix != ".checkpoint"
        if match and (half_written or match[1] not in needed):
            found.append(path)
    return found


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def remove(paths: Iterable[Path]) -> None:
    """Delete files and folders."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
