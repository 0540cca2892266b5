"""Stamps: what decides the paper's fixed-name files besides the records.

A stamp is rewritten only when its content changes, so that Snakemake's comparison of times reruns exactly
the rendering that a change of wording, settings, templates or code makes stale.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ablations.study.files import (
    canonical_json,
    sha256_file,
    sha256_text,
    write_text,
    write_text_if_changed,
)
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import (
    ARCHIVE,
    ARCHIVE_STAMP,
    BENCHMARK_STAMP,
    BENCHMARK_SUMMARY,
    BENCHMARK_TABLE,
    COLLECT_STAMP,
    FIGURES,
    FIGURES_STAMP,
    MACROS,
    NUMBERS_STAMP,
    PAGE,
    PAGE_STAMP,
    PDF,
    PDF_STAMP,
    PROVENANCE,
    RESULTS,
    SECTION,
    SECTION_STAMP,
    SUMMARY,
    TABLES,
    TABLES_STAMP,
    WRITTEN_STAMP,
)
from ablations.study.templates import rendered_with

_TEMPLATES = Path("paper/templates")
_REVISIONS = RESULTS / "revisions.json"


def write_stamps(plan: Plan, root: Path) -> None:
    """Write the stamps of rules whose files have fixed names, those that changed.

    Args:
        plan: The study.
        root: Folder of the Snakefile, where the templates lie.
    """
    templates = _templates(root)
    paper_plan = plan.paper_plan(_code(plan, "ablations.paper.collect"))
    _write(
        COLLECT_STAMP,
        paper_plan.model_dump(mode="json", exclude={"revision", "lost"}),
        [*plan.records, *(job.path for job in (*plan.sweeps, *plan.grids.values()))],
        [SUMMARY],
    )
    tables = {"code": _code(plan, "ablations.paper.tables"), "templates": templates["tables"]}
    _write(TABLES_STAMP, tables, [SUMMARY], TABLES)
    _write(FIGURES_STAMP, {"code": _code(plan, "ablations.paper.figures")}, [SUMMARY], FIGURES)
    numbers = {"code": _code(plan, "ablations.paper.numbers"), "templates": templates["numbers"]}
    _write(NUMBERS_STAMP, numbers, [SUMMARY], [MACROS, PROVENANCE])
    page = {"code": _code(plan, "ablations.paper.page"), "templates": templates["page"]}
    _write(PAGE_STAMP, page, [SUMMARY], [PAGE])
    section = {"code": _code(plan, "ablations.paper.section"), "templates": templates["section"]}
    _write(SECTION_STAMP, section, [SUMMARY, *TABLES, *FIGURES, MACROS, PROVENANCE], [SECTION])
    _write(PDF_STAMP, {"code": _code(plan, "ablations.paper.pdf")}, [SECTION], [PDF])
    _write(ARCHIVE_STAMP, {"code": _code(plan, "ablations.paper.archive")}, [SUMMARY], [ARCHIVE])
    _write(WRITTEN_STAMP, {"code": _code(plan, "ablations.dynatree.written")}, [], [])
    if benchmark := plan.benchmark_plan(_code(plan, "ablations.paper.benchmark")):
        content = benchmark.model_dump(mode="json", exclude={"revision", "lost"})
        _write(BENCHMARK_STAMP, content, [benchmark.record], [BENCHMARK_SUMMARY, BENCHMARK_TABLE])
    plan.sources.code.remember()


def _templates(root: Path) -> dict[str, dict[str, str]]:
    """Hashes of the templates that each kind of output is rendered with."""
    folder = root / _TEMPLATES
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    hashes = {name: sha256_file(path) for name, path in files.items()}
    # The page has templates of its own, and the other outputs do not use them.
    page = {name: digest for name, digest in hashes.items() if name.startswith("page/")}
    section = {name: digest for name, digest in hashes.items() if name not in page}

    def of(*outputs: str) -> dict[str, str]:
        found = rendered_with(folder, [f"{Path(output).name}.j2" for output in outputs])
        return {name: digest for name, digest in section.items() if found is None or name in found}

    # No template names the data that the code of the tables reads.
    data = {name: digest for name, digest in section.items() if not name.endswith(".j2")}
    # The section names its floats as it goes.
    return {"tables": of(*TABLES) | data, "numbers": of(MACROS), "page": page, "section": section}


def _code(plan: Plan, module: str) -> str:
    """Digest of a rendering module's code together with the pins it renders with."""
    pins = plan.sources.pins.of(plan.sources.code.computes_with(module))
    pinned = ",".join(f"{name}=={version}" for name, version in pins.items())
    return f"{plan.sources.code.digest(module)[:DIGEST_LENGTH]} {pinned}".strip()


def _write(stamp: str, content: dict[str, Any], needed: Iterable[str | Path], made: Iterable[str]) -> None:
    """Write a stamp if its content changed, or if something was lost that its rule needs.

    Snakemake does not rebuild a missing file on the way to a target that is newer than all that is there,
    so a deleted record or table would never come back. A new revision makes the rule stale. Revisions are
    remembered by content: a configuration changed back has the stamp it had.
    """
    path = Path(stamp)
    revisions = _read(_REVISIONS)
    key = sha256_text(stamp + canonical_json(content))
    asked = revisions.get(key)
    if not (isinstance(asked, dict) and isinstance(asked.get("revision"), int) and "lost" in asked):
        asked = {"revision": 0, "lost": []}
    lost = [str(file) for file in needed if not Path(file).exists()]
    if lost and not _pending(path, {**content, **asked}, lost == asked["lost"], made):
        asked = {"revision": asked["revision"] + 1, "lost": lost}
        write_text(_REVISIONS, json.dumps({**revisions, key: asked}, indent=1) + "\n")
    write_text_if_changed(path, _text({**content, **asked}))


def _pending(stamp: Path, content: dict[str, Any], asked: bool, made: Iterable[str]) -> bool:
    """Whether the rule reruns anyway: it has never run to the end, or was asked for this loss already."""
    files = [Path(file) for file in made]
    if not all(file.exists() for file in files):
        return True
    if not asked or not stamp.exists() or stamp.read_text(encoding="utf-8") != _text(content):
        return False
    return stamp.stat().st_mtime_ns > min(file.stat().st_mtime_ns for file in files)


def _text(content: dict[str, Any]) -> str:
    return to_json(content, indent=1).decode() + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
