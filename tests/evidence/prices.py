"""How far prices of decoding are from what was timed, arm by arm, as a table.

``python -m tests.evidence.prices`` in the folder of a finished study.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ablations.core.record import read_contract
from ablations.paper.summary import Summary
from ablations.study.planning.stages import SUMMARY


class Row(NamedTuple):
    """An arm on its timed prompts.

    Attributes:
        name: Experiment.
        prompts: Timed prompts.
        measured: Measured speed-up over autoregressive decoding, geometric mean.
        priced: Priced speed-up.
    """

    name: str
    prompts: int
    measured: float
    priced: float

    @property
    def error(self) -> float:
        """How much the price is too fast, as a share; below zero where it is too slow."""
        return self.priced / self.measured - 1


def rows(summary: Summary) -> list[Row]:
    """Every arm that was priced."""
    found = []
    for row in summary.rows:
        result = row.decoding
        if result is not None and result.price_error is not None and result.measured_speedup is not None:
            measured = result.measured_speedup.value
            priced = math.exp(measured + result.price_error.value)
            found.append(Row(row.id, result.prompts, math.exp(measured), priced))
    return found


def table(found: Sequence[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| experiment | timed prompts | measured | priced | error |"
    yield "|---|---|---|---|---|"
    for row in found:
        yield f"| {row.name} | {row.prompts} | {row.measured:.3f} | {row.priced:.3f} | {row.error:+.1%} |"
    errors = np.abs([row.error for row in found])
    yield ""
    yield f"{len(found)} experiments; median error {np.median(errors):.1%}, worst {errors.max():.1%}."


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence.prices", description=__doc__)
    parser.add_argument("--summary", type=Path, default=Path(SUMMARY), help="what the tables are made from")
    print("\n".join(table(rows(read_contract(parser.parse_args().summary, Summary)))))


if __name__ == "__main__":
    main()
