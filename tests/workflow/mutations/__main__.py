"""Tries mutations on a finished tiny study, prints the table: ``python -m tests.workflow.mutations``."""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from tests.workflow.conftest import clone
from tests.workflow.mutations.catalogue import MUTATIONS
from tests.workflow.mutations.dryrun import EVERYTHING
from tests.workflow.mutations.study import Mutation, Verdict, try_mutation
from tests.workflow.mutations.table import as_markdown, totals


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.workflow.mutations",
        description="One edit at a time of a finished tiny study: what would run, and what should.",
        epilog="example: python -m tests.workflow.mutations --match sdtp.ablations",
    )
    parser.add_argument("--match", default="", help="only mutations whose name contains this")
    parser.add_argument("--jobs", type=int, default=1, help="mutations tried at the same time")
    parser.add_argument(
        "--study", type=Path, help="folder of the tiny study; made there if need be, and kept for next time"
    )
    parser.add_argument(
        "--workflow-profile", help="profile of Snakemake instead of profiles/default; `none`, say"
    )
    arguments = parser.parse_args()
    profile = arguments.workflow_profile
    flags = () if profile is None else ("--workflow-profile", profile)
    chosen = [mutation for mutation in MUTATIONS if arguments.match in mutation.name]
    with tempfile.TemporaryDirectory() as temporary:
        finished = _finished(arguments.study or Path(temporary, "finished"), flags)
        verdicts = _try_all(chosen, finished, Path(temporary), arguments.jobs, flags)
    print(as_markdown(verdicts))
    print(totals(verdicts))
    sys.exit(any(verdict.missed or verdict.needless for verdict in verdicts))


def _finished(folder: Path, flags: tuple[str, ...]) -> Path:
    """The tiny study in `folder`, brought up to date with this checkout."""
    done = clone(folder.resolve()).snakemake(*EVERYTHING, flags=flags)
    if done.code:
        sys.exit(done.output)
    return folder.resolve()


def _try_all(
    chosen: list[Mutation], finished: Path, folder: Path, jobs: int, flags: tuple[str, ...]
) -> list[Verdict]:
    def attempt(item: tuple[int, Mutation]) -> Verdict:
        index, mutation = item
        return try_mutation(finished, mutation, folder / str(index), EVERYTHING, flags)

    with ThreadPoolExecutor(jobs) as pool:
        tried = pool.map(attempt, enumerate(chosen))
        return list(tqdm(tried, desc="mutations", total=len(chosen), mininterval=2))


if __name__ == "__main__":
    main()
