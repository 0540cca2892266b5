"""Rule `ablation_section`: the summary as a LaTeX section."""

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.record import read_contract
from ablations.evidence.expectations import Method
from ablations.paper.drawn import drawn_from
from ablations.paper.lines import MOST_LINES, keep_ratio_rows, layer_rows
from ablations.paper.ordering import PARTS_OF
from ablations.paper.published import belongs, read_published
from ablations.paper.rendering import render
from ablations.paper.summary import Machine, Row, Summary
from ablations.paper.tables import (
    PARTS,
    drafting_rows,
    further_rows,
    part_rows,
    pipeline_rows,
    recorded_rows,
    sdtp_rows,
)
from ablations.paper.threats import threats
from ablations.paper.wording import tex

FLOATS: dict[str, tuple[Method, str]] = {
    "matrix": ("sdtp", "baseline"),
    "bound": ("sdtp", "baseline"),
    "living": ("sdtp", "baseline"),
    "saliency": ("sdtp", "pruner"),
    "losses": ("sdtp", "losses"),
    "ranking": ("sdtp", "losses"),
    "keep_ratio": ("sdtp", "ratio"),
    "sweep": ("sdtp", "ratio"),
    "pipeline": ("sdtp", "parallel"),
    "traffic": ("sdtp", "parallel"),
    "forward": ("dynatree", "forward"),
    "backward": ("dynatree", "backward"),
    "rounds": ("dynatree", "backward"),
    **{part: ("dynatree", part) for part in PARTS},
    "further": ("dynatree", "forward"),
}
"""Tables and figures with the part each belongs to; without that part it goes to the method's first."""

LABELS = (
    *("setup", "grids", "exactness", "summary", "predictions", "numbers", "decoding-numbers", "published"),
)
"""LaTeX labels of the parts that are not a configuration's sections."""


@dataclass(frozen=True)
class Group:
    """The experiments of one part of the section."""

    method: Method
    name: str
    label: str
    """Its part of a LaTeX label, which no other part has."""
    rows: Sequence[Row]
    floats: Sequence[str]
    """Tables and figures that stand here."""

    @property
    def known(self) -> bool:
        """Whether templates have words for it."""
        return self.name in PARTS_OF[self.method]


def groups(summary: Summary) -> list[Group]:
    """Parts of the section, SDTP first."""
    found: dict[tuple[Method, str], list[Row]] = {}
    for method in PARTS_OF:
        for row in summary.rows:
            if row.method == method:
                # A baseline belongs to no ablation's part, whatever it is filed under.
                name = "baseline" if method == "sdtp" and not row.change else row.section
                found.setdefault((method, name), []).append(row)
    places = _placed(summary, list(found))
    labels = _labels(found)
    return [
        Group(
            method,
            name,
            labels[method, name],
            rows,
            [item for item, place in places.items() if place == (method, name)],
        )
        for (method, name), rows in found.items()
    ]


def _labels(parts: Iterable[tuple[Method, str]]) -> dict[tuple[Method, str], str]:
    """A label for each part: its name, with a number where another part has that; known parts keep theirs."""
    given: dict[tuple[Method, str], str] = {}
    for part in sorted(parts, key=lambda part: part[1] not in PARTS_OF[part[0]]):
        name = re.sub(r"[^a-z0-9]+", "-", part[1].lower()).strip("-") or "other"
        numbered = (f"{name}-{number}" for number in count(2))
        taken = {*LABELS, *given.values()}
        given[part] = next(label for label in chain([name], numbered) if label not in taken)
    return given


def _placed(summary: Summary, parts: Sequence[tuple[Method, str]]) -> dict[str, tuple[Method, str]]:
    """The part in which each table and figure stands that has something to show."""
    shown = {
        "ranking": bool(summary.ranking),
        "sweep": bool(summary.sweeps),
        "living": any(row.sdtp is not None for row in summary.rows),
        "saliency": summary.saliency is not None,
        "traffic": any(row.sdtp is not None for row in pipeline_rows(summary)),
        "rounds": any(row.decoding is not None for row in drafting_rows(summary)),
        "pipeline": bool(pipeline_rows(summary)),
        "further": bool(part_rows(summary, None)),
        # These are about the rows of one part.
        **{name: FLOATS[name] in parts for name in ("keep_ratio", "losses", "forward", "backward", *PARTS)},
    }
    places = {}
    for name, home in FLOATS.items():
        first = next((part for part in parts if part[0] == home[0]), None)
        if first is not None and shown.get(name, True):
            places[name] = home if home in parts else first
    return places


def machines(summary: Summary) -> list[dict[str, Any]]:
    """Distinct environments with what ran there (methods, or `sweep`); commits are no part of a machine."""
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for machine in summary.machines:
        told = (machine.versions.get(name) for name in ("python", "torch", "transformers"))
        key = (machine.host, machine.device, machine.dtype, machine.threads, *told)
        entry = found.setdefault(key, {**_described(machine), "methods": []})
        # Experiments come first: where SDTP ran, its sweep needs no mention.
        ran = machine.method if machine.experiments or machine.method in entry["methods"] else "sweep"
        if ran not in entry["methods"]:
            entry["methods"].append(ran)
    return list(found.values())


def exactness(summary: Summary) -> dict[str, Any]:
    """Prompts of all drafting arms that emitted the target's tokens; arms that share a record count once."""
    results = [row.decoding for row in drafting_rows(summary) if row.decoding is not None]
    prompts, matched, tied = (
        sum(getattr(result, name) for result in results) for name in ("prompts", "matched", "tied")
    )
    full = summary.row(summary.settings.full_method)
    told = full is not None and full.decoding is not None and not full.decoding.autoregressive
    return {
        "prompts": prompts,
        "matched": matched,
        "tied": tied,
        "departed": prompts - matched - tied,
        "repeated": full.decoding.repeated_4grams
        if told
        else float(np.mean([result.repeated_4grams for result in results]) if results else 0.0),
        "source": full.id if told else "mean over the drafting arms",
    }


def render_section(summary: Summary, templates: Path) -> str:
    """The section as LaTeX."""
    environments = machines(summary)
    text = render(
        templates,
        "ablation.tex.j2",
        summary,
        groups=groups(summary),
        sdtp=bool(sdtp_rows(summary)),
        decoding=bool(recorded_rows(summary)),
        drafting=bool(drafting_rows(summary)),
        further=further_rows(summary),
        published=any(belongs(group, summary) for group in read_published(templates).groups),
        machines=environments,
        mixed=any(sum(method in item["methods"] for item in environments) > 1 for method in PARTS_OF),
        threats=threats(summary),
        library=_autoregressive_rows(summary)[:1],
        fewest_timed=min(
            (row.decoding.prompts for row in drafting_rows(summary) if row.decoding is not None), default=0
        ),
        dirty=any(machine.git_dirty for machine in summary.machines),
        exactness=exactness(summary),
        own_scorers=[tex(row.id) for row in _own_scorers(summary)],
        most_lines=MOST_LINES,
        living={"ratios": len(keep_ratio_rows(summary)), "layers": len(layer_rows(summary))},
        drawn={name: drawn_from(summary, name) for name in (*FLOATS, "grid", "grid_lengths")},
    )
    # Line statements take the blank lines around them along, and conditions that do not hold leave some.
    text = re.sub(r"\s*(\\(?:(?:sub)*section|paragraph)\{)", r"\n\n\1", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _own_scorers(summary: Summary) -> list[Row]:
    """Rows of another ratio or protection whose scorer is not that of what they are compared with."""
    return [
        row
        for row in summary.rows
        if row.scorer_shared is False
        and ("preserve" in row.change or "keep_ratio" in row.change.get("schedule", {}))
    ]


def _autoregressive_rows(summary: Summary) -> list[Row]:
    """Rows of autoregressive decoding that was measured beside the library's own."""
    return [
        row for row in summary.rows if row.decoding is not None and row.decoding.library_speedup is not None
    ]


def _described(machine: Machine) -> dict[str, Any]:
    return machine.model_dump(
        include={"host", "device", "device_type", "platform", "dtype", "threads", "versions"}
    )


def main() -> None:
    """Command line of the rule `ablation_section`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.section",
        description="Render the ablation section of a study.",
        epilog="example: python -m ablations.paper.section --summary results/summary.json"
        " --templates paper/templates --out paper/ablation.tex",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    parser.add_argument("--templates", type=Path, required=True, help="folder of the templates")
    parser.add_argument("--out", type=Path, required=True, help="section to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        summary = read_contract(arguments.summary, Summary)
        write_text(arguments.out, render_section(summary, arguments.templates))


if __name__ == "__main__":
    main()
