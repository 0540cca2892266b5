"""Rule `tables`: the summary as booktabs tables."""

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.record import read_contract
from ablations.paper.published import beside, read_published
from ablations.paper.quantities.effects import effects_of
from ablations.paper.rendering import render
from ablations.paper.summary import Row, Summary
from ablations.paper.wording import tex

MAIN_ROWS = 16
"""Most rows of the main SDTP table, which has to fit a page; more of them go to the appendix."""

PARTS = ("adaptation", "drafter", "neural")
"""Sections whose decoding rows have a table of their own."""


def sdtp_rows(summary: Summary) -> list[Row]:
    """Every SDTP experiment, in the order of the section."""
    return [row for row in summary.rows if row.method == "sdtp"]


def main_rows(summary: Summary) -> list[Row]:
    """Rows of the main SDTP table, in the order of the settings."""
    rows = {row.id: row for row in sdtp_rows(summary)}
    chosen = [rows[name] for name in summary.settings.main if name in rows] or list(rows.values())
    return chosen[:MAIN_ROWS]


def further_rows(summary: Summary) -> list[Row]:
    """SDTP rows outside the main table."""
    main = main_rows(summary)
    return [row for row in sdtp_rows(summary) if row not in main]


def pipeline_rows(summary: Summary) -> list[Row]:
    """SDTP rows whose prefill is split over ranks."""
    return [row for row in sdtp_rows(summary) if "pipeline" in row.change]


def decoding_rows(summary: Summary, names: Iterable[str]) -> list[Row]:
    """Rows called `names`; ids that the study switched off are none of its rows."""
    return [row for name in names if (row := summary.row(name)) is not None]


def backward_rows(summary: Summary) -> list[Row]:
    """The full method, then what was removed from it."""
    settings = summary.settings
    removed = [name for name in settings.backward if name != settings.full_method]
    return decoding_rows(summary, [settings.full_method, *removed])


def part_rows(summary: Summary, part: str | None) -> list[Row]:
    """Decoding rows of one of `PARTS` that are in neither the forward nor the backward table.

    The full method stands first where one of them is compared with it.

    Args:
        summary: The study.
        part: Their section; None for the rows of all sections that are none of `PARTS`.
    """
    settings = summary.settings
    listed = {*settings.forward, *settings.backward, settings.full_method}
    rows = [
        row
        for row in summary.rows
        if row.method == "dynatree"
        and row.id not in listed
        and part == (row.section if row.section in PARTS else None)
    ]
    compared = any(row.versus == settings.full_method for row in rows)
    return [*decoding_rows(summary, [settings.full_method] if compared else []), *rows]


def recorded_rows(summary: Summary) -> list[Row]:
    """Every decoding experiment; of those that share a record the first."""
    found: dict[str, Row] = {}
    for row in summary.rows:
        if row.method == "dynatree":
            found.setdefault(row.files[0].path, row)
    return list(found.values())


def drafting_rows(summary: Summary) -> list[Row]:
    """The same without autoregressive decoding."""
    return [row for row in recorded_rows(summary) if row.decoding is None or not row.decoding.autoregressive]


def most_prompts(summary: Summary) -> int:
    """Timed prompts of the decoding experiments that were timed on the most; 0 where none ran."""
    return max((row.decoding.prompts for row in summary.rows if row.decoding is not None), default=0)


def few_prompts(summary: Summary, rows: Iterable[Row]) -> list[str]:
    """Those of some decoding rows that were timed on fewer prompts than others, with the number, as LaTeX."""
    most = most_prompts(summary)
    return [
        f"{tex(row.id)} ({row.decoding.prompts} of {most})"
        for row in rows
        if row.decoding is not None and row.decoding.prompts < most
    ]


def write_tables(summary: Summary, templates: Path, folder: Path) -> None:
    """Render every table into `folder`."""
    further, drafting = further_rows(summary), drafting_rows(summary)
    forward, backward = decoding_rows(summary, summary.settings.forward), backward_rows(summary)
    deepest = max((len(row.decoding.depths) for row in drafting if row.decoding is not None), default=0)
    published = read_published(templates)
    contexts: dict[str, dict[str, Any]] = {
        "sdtp_matrix.tex": {"rows": main_rows(summary), "further": further},
        "sdtp_matrix_column.tex": {"rows": main_rows(summary), "further": further},
        "sdtp_further.tex": {"rows": further},
        "sdtp_effects.tex": {"rows": sdtp_rows(summary)},
        "sdtp_quality.tex": {"rows": sdtp_rows(summary)},
        "sdtp_cost.tex": {"rows": sdtp_rows(summary)},
        "sdtp_ranking.tex": {"scorers": summary.ranking},
        "sdtp_pipeline.tex": {"rows": pipeline_rows(summary)},
        "sweep.tex": {},
        "decoding.tex": {"rows": forward},
        "decoding_column.tex": {"rows": forward, "fewer": few_prompts(summary, forward)},
        "decoding_backward_column.tex": {"rows": backward, "fewer": few_prompts(summary, backward)},
        "decoding_backward.tex": {"rows": backward},
        **{f"decoding_{part}.tex": {"rows": part_rows(summary, part)} for part in PARTS},
        "decoding_further.tex": {"rows": part_rows(summary, None)},
        "decoding_kinds.tex": {"rows": recorded_rows(summary)},
        "decoding_rounds.tex": {"rows": drafting, "depths": max(1, deepest)},
        "decoding_clocks.tex": {"rows": drafting},
        "grid.tex": {},
        "decisions.tex": {"effects_of": partial(effects_of, summary)},
        "published.tex": {"published": published, "groups": list(beside(published, summary))},
    }
    texts = {name: render(templates, f"{name}.j2", summary, **context) for name, context in contexts.items()}
    for name, text in texts.items():
        write_text(folder / name, text)


def main() -> None:
    """Command line of the rule `tables`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.tables",
        description="Render the tables of a study.",
        epilog="example: python -m ablations.paper.tables --summary results/summary.json"
        " --templates paper/templates --out paper/tables",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    parser.add_argument("--templates", type=Path, required=True, help="folder of the templates")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tables into")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out / "any")
        write_tables(read_contract(arguments.summary, Summary), arguments.templates, arguments.out)


if __name__ == "__main__":
    main()
