"""Which modules a job runs, by the standard library's own reading of imports (the planner uses grimp)."""

from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path

from tests.workflow.mutations.jobs import READS

SOURCE = Path(__file__).parents[3] / "src"

MODULE_OF = {
    "model": "lm.prepare_model",
    "text": "lm.prepare_text",
    "saliency": "sdtp.saliency",
    "pruner": "sdtp.train",
    "calibration": "sdtp.calibrate",
    "evaluate": "sdtp.evaluate",
    "pipeline": "sdtp.evaluate_pipeline",
    "join": "evidence.join",
    "sweep": "sdtp.sweep",
    "ngram": "dynatree.fit_ngram",
    "teacher": "dynatree.distil_teacher",
    "written": "dynatree.written",
    "draft": "dynatree.distil",
    "target_costs": "dynatree.calibrate_target",
    "acceptance": "dynatree.calibrate_drafter",
    "costs": "dynatree.calibrate_costs",
    "grid": "dynatree.grid",
    "decode": "dynatree.decode",
    "replay": "dynatree.replay_arms",
    "benchmark": "dynatree.benchmark",
    "benchmark table": "paper.benchmark",
    "collect": "paper.collect",
    "tables": "paper.tables",
    "figures": "paper.figures",
    "numbers": "paper.numbers",
    "section": "paper.section",
    "page": "paper.page",
    "archive": "paper.archive",
}
"""Module that makes each kind of block or result, as `study/planning/stages.py` says."""


def all_modules() -> list[str]:
    """Every module of the package, by path relative to `src`."""
    return sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob("ablations/**/*.py"))


def jobs_that_run(file: str) -> set[str]:
    """Jobs whose module imports the file at `file` (relative to `src`), directly or not."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return {job for job in READS if name in _read(_module(job))[0]}


def jobs_that_compute_with(library: str) -> set[str]:
    """Jobs whose modules import a library."""
    return {job for job in READS if library in _read(_module(job))[1]}


def _module(job: str) -> str:
    return MODULE_OF.get(job) or MODULE_OF[job.split()[0]]


@cache
def _read(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Own modules that a module imports, itself included, and the names of others."""
    finder = ModuleFinder(path=[str(SOURCE)])
    path = SOURCE.joinpath("ablations", *module.split("."))
    finder.import_hook(f"ablations.{module}")
    assert path.with_suffix(".py").exists()
    # What is not found in the package is a library, or a module of one.
    libraries = frozenset(name.partition(".")[0] for name in finder.badmodules)
    return frozenset(finder.modules), libraries
