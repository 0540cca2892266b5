"""Results that no study in this folder needs any more."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ablations.core.errors import UserError
from ablations.core.panel import read_panel
from ablations.study.invocation import require_idle
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import BLOCKS, PANEL, RESULTS

# Names of files that begin with a job's digest; a file that is being written is hidden.
_DIGEST_NAME = re.compile(rf"\.?([0-9a-f]{{{DIGEST_LENGTH}}})(\..*)?")
_FOLDERS = (RESULTS, Path("logs"), Path("benchmarks"))


def unneeded(plans: Iterable[Plan]) -> list[Path]:
    """Files and folders named by a digest (specs, results, logs, notes on code) that no given study needs.

    A panel is needed, with its receipt and its log, as long as one of its jobs is. Among what is not needed
    are the temporary files of killed jobs, but not the checkpoint of an unfinished training that a study
    needs.

    Raises:
        UserError: Snakemake runs here, and temporary files may belong to its jobs.
    """
    require_idle("prune")
    needed = set()
    for plan in plans:
        needed.add(plan.config_path.stem)
        for job in plan.jobs.values():
            needed |= {job.digest, job.file.code_digest}
    needed |= {path.stem for path in Path(PANEL).parent.glob("*.json") if _jobs(path) & needed}
    paths = sorted(Path(BLOCKS).parent.glob("*/.*"))
    for path in sorted(path for folder in _FOLDERS for path in folder.glob("*/*")):
        match = _DIGEST_NAME.fullmatch(path.name)
        temporary = path.name.startswith(".") and path.suffix != ".checkpoint"
        if match and (temporary or match[1] not in needed):
            paths.append(path)
    whole = {path for path in paths if path.is_dir()}
    return [path for path in paths if path.parent not in whole]


def _jobs(panel: Path) -> set[str]:
    """Digests of the jobs of a panel; none where its file is damaged."""
    try:
        return {entry.digest for entry in read_panel(panel).entries}
    except UserError:
        return set()


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
