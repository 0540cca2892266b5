"""What came of the hypotheses of a study: the last words of a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import get_args

from ablations.core.errors import one_line_errors
from ablations.core.record import read_contract
from ablations.evidence.verdicts import Verdict
from ablations.paper.summary import Summary

WIDTH = 88


def findings(summary: Summary) -> str:
    """Experiments that state a hypothesis, by verdict; one paragraph for each verdict that occurs."""
    tested = [row for row in summary.rows if row.hypothesis]
    lines = [f"Study {summary.study}: {len(tested)} hypotheses."]
    for verdict in get_args(Verdict):
        ids = [row.id for row in tested if row.verdict == verdict]
        lines += _paragraph(f"  {verdict.replace('_', ' '):13} {len(ids):3}  ", ids)
    return "\n".join(lines)


def _paragraph(head: str, ids: Sequence[str]) -> list[str]:
    return wrap(" ".join(ids), WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def main() -> None:
    """Command line; Snakemake prints the same when a run has ended well."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.findings",
        description="Say what came of the expectations of each hypothesis of a study.",
        epilog="example: python -m ablations.paper.findings --summary results/summary.json",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    arguments = parser.parse_args()
    with one_line_errors(arguments.summary):
        print(findings(read_contract(arguments.summary, Summary)))


if __name__ == "__main__":
    main()
