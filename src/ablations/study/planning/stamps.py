"""Stamps: what decides the paper's fixed-name files besides the records.

A stamp is rewritten only when its content changes, so that Snakemake's comparison of times reruns exactly
the rendering that a change of wording, settings, templates or code makes stale.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations.study.files import sha256_file, write_text_if_changed
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import (
    COLLECT_STAMP,
    FIGURES,
    FIGURES_STAMP,
    SECTION,
    SECTION_STAMP,
    SUMMARY,
    TABLES,
    TABLES_STAMP,
)

_TEMPLATES = Path("paper/templates")


def write_stamps(plan: Plan, root: Path) -> None:
    """Write the stamps of the paper rules, those that changed.

    Args:
        plan: The study.
        root: Folder of the Snakefile, where the templates lie.
    """
    templates = {
        str(path.relative_to(root)): sha256_file(path) for path in sorted((root / _TEMPLATES).rglob("*.j2"))
    }
    paper_plan = plan.paper_plan(_code(plan, "ablations.paper.collect"))
    _write(
        COLLECT_STAMP,
        paper_plan.model_dump(mode="json", exclude={"revision", "lost"}),
        plan.records,
        [SUMMARY],
    )
    tables = {"code": _code(plan, "ablations.paper.tables"), "templates": templates}
    _write(TABLES_STAMP, tables, [SUMMARY], TABLES)
    _write(FIGURES_STAMP, {"code": _code(plan, "ablations.paper.figures")}, [SUMMARY], FIGURES)
    section = {"code": _code(plan, "ablations.paper.section"), "templates": templates}
    _write(SECTION_STAMP, section, [SUMMARY, *TABLES, *FIGURES], [SECTION])


def _code(plan: Plan, module: str) -> str:
    """Digest of a rendering module's code together with the pins it renders with."""
    pins = plan.sources.pins.of(plan.sources.code.computes_with(module))
    pinned = ",".join(f"{name}=={version}" for name, version in pins.items())
    return f"{plan.sources.code.digest(module)[:DIGEST_LENGTH]} {pinned}".strip()


def _write(stamp: str, content: dict[str, Any], needed: Iterable[str | Path], made: Iterable[str]) -> None:
    """Write a stamp if its content changed, or if something was lost that its rule needs.

    Snakemake does not rebuild a missing file on the way to a target that is newer than all that is there,
    so a deleted record or table would never come back. A new revision makes the rule stale.
    """
    path = Path(stamp)
    before = _read(path)
    asked = {"revision": before.pop("revision", 0), "lost": before.pop("lost", [])}
    lost = [str(file) for file in needed if not Path(file).exists()]
    # Changed content makes the rule stale by itself, and changed back it must be what it was.
    if lost and before == content and not _pending(path, lost == asked["lost"], made):
        asked = {"revision": asked["revision"] + 1, "lost": lost}
    write_text_if_changed(path, json.dumps({**content, **asked}, indent=1) + "\n")


def _read(stamp: Path) -> dict[str, Any]:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _pending(stamp: Path, asked: bool, made: Iterable[str]) -> bool:
    """Whether the rule reruns anyway: it has never run to the end, or was asked for this loss already."""
    files = [Path(file) for file in made]
    if not all(file.exists() for file in files):
        return True
    return asked and stamp.stat().st_mtime_ns > min(file.stat().st_mtime_ns for file in files)
