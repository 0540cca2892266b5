"""Rule `tables`: the summary as booktabs tables."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from ablations.paper.rendering import render
from ablations.paper.summary import Row, Summary
from ablations.study.cli import one_line_errors
from ablations.study.files import write_text
from ablations.study.record_io import read_contract

MAIN_ROWS = 16
"""Most rows of the main SDTP table, which has to fit a page; more of them go to the appendix."""


def sdtp_rows(summary: Summary) -> list[Row]:
    """Every SDTP experiment, in the order of the configuration."""
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


def write_tables(summary: Summary, templates: Path, folder: Path) -> None:
    """Render every table into `folder`."""
    further = further_rows(summary)
    contexts = {
        "sdtp_matrix.tex": {"rows": main_rows(summary), "further": further},
        "sdtp_further.tex": {"rows": further},
        "sdtp_quality.tex": {"rows": sdtp_rows(summary)},
        "sdtp_cost.tex": {"rows": sdtp_rows(summary)},
        "sdtp_ranking.tex": {"scorers": summary.ranking},
        "sdtp_pipeline.tex": {"rows": pipeline_rows(summary)},
        "sweep.tex": {},
        "decoding.tex": {"rows": decoding_rows(summary, summary.settings.forward)},
        "decoding_backward.tex": {"rows": backward_rows(summary)},
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
        write_tables(read_contract(arguments.summary, Summary), arguments.templates, arguments.out)


if __name__ == "__main__":
    main()
