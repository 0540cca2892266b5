"""Results that no study in this folder needs any more."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import RESULTS

# What the workflow names by a job's digest, whatever follows it.
_NAMED = re.compile(rf"([0-9a-f]{{{DIGEST_LENGTH}}})(\..*)?")
_FOLDERS = (RESULTS, Path("logs"), Path("benchmarks"))


def unneeded(plans: Iterable[Plan]) -> list[Path]:
    """Specs, results, logs and benchmarks whose digest is no job's of the given studies."""
    needed = {digest for plan in plans for digest in plan.jobs}
    found = []
    for path in sorted(path for folder in _FOLDERS for path in folder.glob("*/*")):
        match = _NAMED.fullmatch(path.name)
        if match and match[1] not in needed:
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
