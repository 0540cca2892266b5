"""Several studies side by side: the same experiments on several models or texts, a column each."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ablations.core.errors import UserError, one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.record import read_contract
from ablations.evidence.expectations import Method
from ablations.paper.numbers import all_quantities
from ablations.paper.quantities.quantity import Quantity
from ablations.paper.rendering import render
from ablations.paper.summary import Summary

JoinedRow = tuple[str, str, list[list[Quantity | None]]]
"""An experiment's id and title, and its numbers in each study."""

NUMBERS: dict[Method, tuple[str, str]] = {
    "sdtp": ("text_effect", "speedup"),
    "dynatree": ("throughput", "speedup"),
}
"""What a cell shows of an experiment, by its method: names as in `paper/numbers.tex`."""


def joined(summaries: Sequence[Summary], method: Method) -> list[JoinedRow]:
    """Rows of the table; None stands for a number that a study does not have.

    Raises:
        UserError: no study has an experiment of the method.
    """
    measured = [{item.name: item for item in all_quantities(summary)} for summary in summaries]
    titles: dict[str, str] = {}
    for summary in summaries:
        titles |= {row.id: row.title for row in summary.rows if row.method == method and row.id not in titles}
    if not titles:
        raise UserError(f"--method: no experiment of '{method}' in these summaries; choose the other")
    return [
        (name, title, [[found.get(f"{name}.{number}") for number in NUMBERS[method]] for found in measured])
        for name, title in titles.items()
    ]


def render_joined(summaries: Sequence[Summary], method: Method, templates: Path) -> str:
    """The table as LaTeX."""
    columns = [(summary.models[method], summary.study) for summary in summaries]
    rows = joined(summaries, method)
    return render(templates, "joined.tex.j2", summaries[0], columns=columns, rows=rows, method=method)


def main() -> None:
    """Command line that joins summaries."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.join",
        description="Set several studies side by side in one table, a column each.",
        epilog="example: python -m ablations.paper.join results/mistral.json results/qwen2.json"
        " --templates paper/templates --out paper/joined.tex",
    )
    parser.add_argument("summaries", type=Path, nargs="+", help="outputs of ablations.paper.collect")
    parser.add_argument("--method", choices=NUMBERS, default="sdtp", help="whose experiments (sdtp)")
    parser.add_argument("--templates", type=Path, required=True, help="folder of the templates")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        summaries = [read_contract(path, Summary) for path in arguments.summaries]
        write_text(arguments.out, render_joined(summaries, arguments.method, arguments.templates))


if __name__ == "__main__":
    main()
