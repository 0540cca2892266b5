"""What a run says at its end: what is decided and where things are, or what was not measured."""

import subprocess
import sys
from pathlib import Path

from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import COLLECT_STAMP, SECTION, SUMMARY


def say_where(plan: Plan) -> None:
    """After a run that ended well: how much is decided, where the results are, and what is open.

    What is decided is told by the summary, where it is of these records.
    """
    needed = [Path(COLLECT_STAMP), *plan.records]
    measured = sum(path.exists() for path in plan.records)
    if not measured:
        return
    summary = Path(SUMMARY)
    current = summary.exists() and all(
        path.exists() and path.stat().st_mtime <= summary.stat().st_mtime for path in needed
    )
    written = current and Path(SECTION).exists()
    print(flush=True)
    if written:
        _ask("ablations.paper.findings", "--summary", SUMMARY)
    print(
        f"{measured} of {len(plan.records)} records of study '{plan.config.study}' are in results/record"
        " (`python -m ablations.study show` lists them)."
    )
    if not written:
        print(f"`snakemake --cores 1 {SECTION}` writes the section.")
        return
    print(f"The section is {SECTION}, its tables and figures lie beside it.", flush=True)
    _ask("ablations.study.prospects", "--plan", COLLECT_STAMP)


def report_missing(plan: Plan) -> None:
    """After a run that failed: which experiments have no record; nothing was left out silently."""
    missing = [row.experiment.id for row in plan.rows if not all(job.path.exists() for job in row.jobs)]
    if missing:
        print(
            f"error: not measured: {', '.join(missing)}. The paper leaves no experiment out: it is written"
            " when all have a record. Their logs say why (above, and `python -m ablations.study show ID`);"
            " run the same command again for what is missing",
            file=sys.stderr,
        )


def _ask(module: str, *arguments: str) -> None:
    """Let a process of its own say something: the run has succeeded, whatever becomes of its last words."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=False)
