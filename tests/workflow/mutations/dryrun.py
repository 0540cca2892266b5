"""What Snakemake would run: dry runs in processes that have imported it already."""

import contextlib
import os
import re
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

from tests.workflow.mutations.naming import names

TINY = "workflow/studies/tiny.yaml"
PAPER = ("paper/ablation.tex",)
EVERYTHING = (
    *PAPER,
    "paper/results.html",
    "results/benchmark/decoding.json",
    "results/archive.tar.gz",
    "written",
)

_COMMAND = re.compile(r"^Shell command: +(python .+)$", re.MULTILINE)
"""What a rule runs; targets have none."""
# Snakemake's imports take longer than a dry run of the tiny study. Nothing of this project is among
# them: each dry run imports the source of the copy it is about.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["snakemake.cli", "snakemake.dag", "pandas", "grimp", "pydantic", "jinja2"])


def planned(
    folder: Path, targets: tuple[str, ...] = EVERYTHING, flags: tuple[str, ...] = ()
) -> frozenset[str]:
    """Names of what Snakemake would make now for `targets`, as `mutations.jobs` calls it.

    Args:
        folder: The study.
        targets: What is asked for.
        flags: Further options of Snakemake.

    Raises:
        RuntimeError: Snakemake refused, with what it printed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        said = Path(temporary, "said")
        process = _CONTEXT.Process(target=_dry_run, args=(folder, targets, flags, said))
        process.start()
        process.join()
        text = said.read_text()
    if process.exitcode != 0:
        raise RuntimeError(f"dry run in {folder} ended with {process.exitcode}:\n{text}")
    return frozenset(name for command in _COMMAND.findall(text) for name in names(folder, command))


def _dry_run(folder: Path, targets: tuple[str, ...], flags: tuple[str, ...], said: Path) -> None:
    with said.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(folder)
    os.environ.pop("PYTHONPATH", None)
    source = [path for path in sys.path if not Path(path, "ablations").is_dir()]
    sys.path[:] = source
    from snakemake.cli import main

    with contextlib.suppress(BrokenPipeError):
        main(["--dry-run", "--printshellcmds", "--cores", "1", "--configfile", TINY, *flags, "--", *targets])
