"""Stamps: what the paper's files depend on besides the records.

A stamp is rewritten only when its content changes. Snakemake, which compares times, therefore reruns exactly
the rules that a change of wording, settings, templates or code makes stale.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ablations.core.files import canonical_json, sha256_file, sha256_text, write_text, write_text_if_changed
from ablations.study.planning.family import recorded_plan
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
    """Write the stamps of the rendering rules, as far as they changed, and the plan of the family.

    Args:
        plan: The study.
        root: Folder of the Snakefile, which holds the templates.
    """
    templates = _templates(root)
    family = recorded_plan(plan.family, plan.config)
    paper_plan = plan.paper_plan(_code(plan, "ablations.paper.collect"), family)
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


def _templates(root: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of the templates that each kind of output is rendered with, by the template's name."""
    folder = root / _TEMPLATES
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    hashes = {name: sha256_file(path) for name, path in files.items()}
    # Only the page uses the templates in `page/`, and it uses no others.
    page = {name: digest for name, digest in hashes.items() if name.startswith("page/")}
    section = {name: digest for name, digest in hashes.items() if name not in page}

    def of(*outputs: str) -> dict[str, str]:
        used = rendered_with(folder, [f"{Path(output).name}.j2" for output in outputs])
        return {name: digest for name, digest in section.items() if used is None or name in used}

    # Data that the code of the tables reads; no template refers to it.
    data = {name: digest for name, digest in section.items() if not name.endswith(".j2")}
    # The section computes the names of the floats that it includes, so it may use any template.
    return {"tables": of(*TABLES) | data, "numbers": of(MACROS), "page": page, "section": section}


def _code(plan: Plan, module: str) -> str:
    """Digest of a rendering module's code, with the pins of the libraries that it renders with."""
    pins = plan.sources.pins.of(plan.sources.code.computes_with(module))
    pinned = ",".join(f"{name}=={version}" for name, version in pins.items())
    return f"{plan.sources.code.digest(module)[:DIGEST_LENGTH]} {pinned}".strip()


def _write(stamp: str, content: dict[str, Any], inputs: Iterable[str | Path], outputs: Iterable[str]) -> None:
    """Write a stamp if its content changed, or with a new revision if an input of its rule was lost.

    Snakemake does not rebuild a missing intermediate file while its target is newer than the files that
    exist, so that a deleted record or table would never come back. A new revision makes the rule stale.
    Revisions are kept by content: a configuration that is changed back has its earlier stamp again.
    """
    path = Path(stamp)
    revisions = _read(_REVISIONS)
    key = sha256_text(stamp + canonical_json(content))
    revision = revisions.get(key)
    if not (isinstance(revision, dict) and isinstance(revision.get("revision"), int) and "lost" in revision):
        revision = {"revision": 0, "lost": []}
    lost = [str(file) for file in inputs if not Path(file).exists()]
    if lost and not _pending(path, {**content, **revision}, lost == revision["lost"], outputs):
        revision = {"revision": revision["revision"] + 1, "lost": lost}
        write_text(_REVISIONS, json.dumps({**revisions, key: revision}, indent=1) + "\n")
    write_text_if_changed(path, _text({**content, **revision}))


def _pending(stamp: Path, content: dict[str, Any], revised: bool, outputs: Iterable[str]) -> bool:
    """Whether the rule reruns without a new revision: an output is missing, or older than this loss's stamp.

    Args:
        stamp: Path of the stamp.
        content: Content of the stamp with its last revision.
        revised: Whether that revision was made for the present loss.
        outputs: Files that the rule makes.
    """
    files = [Path(file) for file in outputs]
    if not all(file.exists() for file in files):
        return True
    if not revised or not stamp.exists() or stamp.read_text(encoding="utf-8") != _text(content):
        return False
    return stamp.stat().st_mtime_ns > min(file.stat().st_mtime_ns for file in files)


def _text(content: dict[str, Any]) -> str:
    return to_json(content, indent=1).decode() + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
