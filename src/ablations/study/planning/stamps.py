"""Stamps: what decides the paper's fixed-name files besides the records.

A stamp is rewritten only when its content changes, so that Snakemake's comparison of times reruns exactly
the rendering that a change of wording, settings, templates or code makes stale.
"""

import json
from pathlib import Path
from typing import Any

from ablations.study.files import sha256_file, write_text_if_changed
from ablations.study.planning.jobs import DIGEST_LENGTH
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import COLLECT_STAMP, FIGURES_STAMP, SECTION_STAMP, TABLES_STAMP

_TEMPLATES = Path("paper/templates")


def write_stamps(plan: Plan, root: Path) -> None:
    """Write the stamps of the paper rules, those that changed.

    Args:
        plan: The study.
        root: Folder of the Snakefile, where the templates lie.
    """
    paper_plan = plan.paper_plan(_code(plan, "ablations.paper.collect"))
    write_text_if_changed(Path(COLLECT_STAMP), paper_plan.model_dump_json(indent=1) + "\n")
    templates = {
        str(path.relative_to(root)): sha256_file(path) for path in sorted((root / _TEMPLATES).rglob("*.j2"))
    }
    _write(TABLES_STAMP, code=_code(plan, "ablations.paper.tables"), templates=templates)
    _write(FIGURES_STAMP, code=_code(plan, "ablations.paper.figures"))
    _write(SECTION_STAMP, code=_code(plan, "ablations.paper.section"), templates=templates)


def _code(plan: Plan, module: str) -> str:
    """Digest of a rendering module's code together with the pins it renders with."""
    pins = plan.sources.pins.of(plan.sources.code.computes_with(module))
    pinned = ",".join(f"{name}=={version}" for name, version in pins.items())
    return f"{plan.sources.code.digest(module)[:DIGEST_LENGTH]} {pinned}".strip()


def _write(path: str, **content: Any) -> None:
    write_text_if_changed(Path(path), json.dumps(content, indent=1, sort_keys=True) + "\n")
