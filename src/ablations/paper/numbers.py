"""Rule `numbers`: measured numbers as macros, and where each comes from."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.record import read_contract
from ablations.paper.quantities.decoding import decoding_quantities, grid_quantities
from ablations.paper.quantities.effects import decision_quantities, effect_quantities
from ablations.paper.quantities.noise import noise_quantities
from ablations.paper.quantities.quantity import Quantity
from ablations.paper.quantities.sdtp import ranking_quantities, sdtp_quantities, sweep_quantities
from ablations.paper.rendering import render
from ablations.paper.summary import Summary


def all_quantities(summary: Summary) -> Iterator[Quantity]:
    """Every number that tables and text print of what was measured, in the order of the study."""
    for row in summary.rows:
        if row.sdtp is not None:
            yield from sdtp_quantities(row)
        if row.decoding is not None:
            yield from decoding_quantities(row)
        yield from effect_quantities(summary, row)
        yield from decision_quantities(summary, row)
    yield from ranking_quantities(summary)
    yield from sweep_quantities(summary)
    yield from grid_quantities(summary)
    yield from noise_quantities(summary)


def provenance(summary: Summary, quantities: Iterable[Quantity]) -> dict[str, Any]:
    """Each number with the paths of its records, and of each record what it is; and what was decided.

    Returns:
        `alpha` (intervals cover 1 - alpha), `records` by path, and `numbers`, whose entries name them;
        `decisions`, and `plan`, the experiments and settings that they follow from.
    """
    files, numbers = {}, []
    for item in quantities:
        for file in (*item.files, *item.versus):
            files[file.path] = file.model_dump(mode="json", exclude={"path"})
        numbers.append(
            {
                **item.model_dump(mode="json", exclude={"files", "versus"}),
                "records": [file.path for file in item.files],
                "versus": [file.path for file in item.versus],
            }
        )
    return {
        "study": summary.study,
        "alpha": summary.settings.thresholds.alpha,
        "records": files,
        "numbers": numbers,
        "decisions": [part.model_dump(mode="json") for row in summary.rows for part in row.parts],
        "plan": {
            "settings": summary.settings.model_dump(
                mode="json", include={"confirmatory", "looks", "thresholds", "full_method"}
            ),
            "experiments": [
                row.model_dump(mode="json", include={"id", "method", "versus", "expect", "seeds"})
                | {"records": [file.path for file in row.files]}
                for row in summary.rows
            ],
        },
    }


def write_numbers(summary: Summary, templates: Path, macros: Path, sources: Path) -> None:
    """Write the macros and the provenance of every number."""
    found = list(all_quantities(summary))
    write_text(macros, render(templates, "numbers.tex.j2", summary, quantities=found))
    write_text(sources, json.dumps(provenance(summary, found), indent=1, allow_nan=False) + "\n")


def main() -> None:
    """Command line of the rule `numbers`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.numbers",
        description="Write measured numbers as macros, and where each comes from.",
        epilog="example: python -m ablations.paper.numbers --summary results/summary.json"
        " --templates paper/templates --macros paper/numbers.tex --provenance paper/provenance.json",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    parser.add_argument("--templates", type=Path, required=True, help="folder of the templates")
    parser.add_argument("--macros", type=Path, required=True, help="macros to write")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.macros):
        require_out(arguments.macros, "--macros")
        require_out(arguments.provenance, "--provenance")
        summary = read_contract(arguments.summary, Summary)
        write_numbers(summary, arguments.templates, arguments.macros, arguments.provenance)


if __name__ == "__main__":
    main()
