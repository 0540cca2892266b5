"""An evaluation shared by several jobs: each takes every n-th prompt, and one joins their records."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from ablations.sdtp.evaluation.report import SdtpRecord
from ablations.study.errors import UserError
from ablations.study.job import Run
from ablations.study.record_io import digests_of, read_record, read_rows, write_record

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of the prompts, counted from 1 as file names and users do."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``2-of-4``.

        Raises:
            argparse.ArgumentTypeError: not a share.
        """
        number, separator, of = text.partition("-of-")
        if not (separator and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise argparse.ArgumentTypeError(f"'{text}' is no share such as 2-of-4")
        return cls(int(number), int(of))

    def take(self, items: Sequence[Item]) -> list[tuple[int, Item]]:
        """This share of `items`, each with its place among all of them."""
        return list(enumerate(items))[self.number - 1 :: self.of]


WHOLE = Shard(1, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments with which several jobs share an evaluation."""
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--shard", type=Shard.parse, default=WHOLE, help="evaluate only this share of the prompts: 2-of-4"
    )
    share.add_argument(
        "--join", type=Path, nargs="+", help="measure nothing, join the records of all shares (in order)"
    )


def join(run: Run, paths: Sequence[Path]) -> None:
    """Write the record of an evaluation from those of its shares.

    Costs are means over all prompts. A share that crashed makes the whole crash.

    Raises:
        UserError: a share is missing, damaged, of another spec, or ran on another kind of device.
    """
    parts = [read_record(path, SdtpRecord) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.digests.job != run.job.digest:
            raise UserError(f"{path}: a share of another experiment; delete it and run snakemake again")
        if part.environment.device != parts[0].environment.device:
            raise UserError(
                f"{path}: measured on '{part.environment.device}', the first share on"
                f" '{parts[0].environment.device}'; let all shares run on one kind of machine"
            )
    crashed = next((part for part in parts if part.outcome.status == "crashed"), None)
    if crashed is not None:
        write_record(run.out, crashed)
        return
    rows = _interleave([read_rows(path, part) for path, part in zip(paths, parts, strict=True)])
    totals = parts[0].totals.model_copy(
        update={
            "prefill_flops": _mean(parts, lambda totals: totals.prefill_flops),
            "kv_bytes": _mean(parts, lambda totals: totals.kv_bytes),
            "retrieval": tuple(_interleave([part.totals.retrieval for part in parts])),
            "peak_memory_bytes": max(part.totals.peak_memory_bytes for part in parts),
        }
    )
    seconds = sum(part.environment.seconds for part in parts)
    record = parts[0].model_copy(
        update={
            "samples": tuple(_interleave([part.samples for part in parts])),
            "totals": totals,
            "environment": parts[0].environment.model_copy(update={"seconds": seconds}),
            "digests": digests_of(run),
            "side": None,
        }
    )
    write_record(run.out, record, rows)


def _interleave(shares: Sequence[Sequence[Item]]) -> list[Item]:
    """Undo `Shard.take`."""
    longest = max(len(share) for share in shares)
    return [share[place] for place in range(longest) for share in shares if place < len(share)]


def _mean(parts: Sequence[SdtpRecord], value: Callable) -> float:
    return fmean([value(part.totals) for part in parts], weights=[len(part.samples) for part in parts])
