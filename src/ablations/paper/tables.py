"""Rule `tables`: the summary as booktabs tables."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from ablations.paper.rendering import render
from ablations.paper.summary import Row, Summary
from ablations.study.cli import one_line_errors
from ablations.study.files import write_text
from ablations.study.record_io import read_contract


def sdtp_rows(summary: Summary) -> tuple[list[Row], list[Row]]:
    """Rows of the main SDTP table, in the order of the settings, and the rest."""
    rows = {row.id: row for row in summary.rows if row.method == "sdtp"}
    main = [rows[name] for name in summary.settings.main if name in rows] or list(rows.values())
    return main, [row for row in rows.values() if row not in main]


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
    main, further = sdtp_rows(summary)
    contexts = {
        "sdtp_matrix.tex": {"main": main, "further": further},
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
