"""What came of the confirmatory predictions of a study: the last words of a run."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import get_args

from ablations.core.errors import one_line_errors
from ablations.core.record import read_contract
from ablations.evidence.decisions import Outcome
from ablations.paper.summary import Summary

WIDTH = 88


def findings(summary: Summary) -> str:
    """How many confirmatory predictions are decided; a paragraph for each outcome; two clocks."""
    found, every = summary.decided
    lines = [f"{found} of {every} confirmatory predictions decided."]
    parts = [part for row in summary.rows for part in row.parts if part.kind == "confirmatory"]
    for outcome in (*get_args(Outcome), None):
        named = [f"{part.experiment}.{part.aspect}" for part in parts if part.outcome == outcome]
        lines += _paragraph(f"  {(outcome or 'not tested').replace('_', ' '):14} {len(named):3}  ", named)
    if clocks := ", ".join(_clocks(summary)):
        lines += wrap(f"Clocks: {clocks}.", WIDTH)
    return "\n".join(lines)


def _clocks(summary: Summary) -> Iterator[str]:
    """The times without pruning and drafting, by which durations on other machines compare."""
    alone = (
        row.decoding.token_seconds for row in summary.rows if row.decoding and row.decoding.autoregressive
    )
    if seconds := next(filter(None, alone), None):
        yield f"{1000 * seconds:.1f} ms an autoregressive token"
    timed = (row.sdtp.reference_seconds for row in summary.rows if row.sdtp and row.sdtp.reference_seconds)
    if summary.sdtp and (seconds := next(timed, None)):
        yield f"{seconds:.2f} s an unpruned prefill of {summary.sdtp.prompt_tokens} tokens"


def _paragraph(head: str, ids: Sequence[str]) -> list[str]:
    return wrap(" ".join(ids), WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def main() -> None:
    """Command line; Snakemake prints the same when a run has ended well."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.findings",
        description="Say what came of the confirmatory predictions of a study.",
        epilog="example: python -m ablations.paper.findings --summary results/summary.json",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    arguments = parser.parse_args()
    with one_line_errors(arguments.summary):
        print(findings(read_contract(arguments.summary, Summary)))


if __name__ == "__main__":
    main()
