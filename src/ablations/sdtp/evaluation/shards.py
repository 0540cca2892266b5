"""An evaluation in shards: each job evaluates every n-th prompt, and a last job joins their records."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from ablations.core.errors import UserError
from ablations.core.job import Run
from ablations.core.record import digests_of, read_record, read_rows, write_record
from ablations.sdtp.evaluation.report import SdtpRecord

Element = TypeVar("Element")


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of the prompts.

    Attributes:
        number: Number of the shard, from 1, as in file names and on the command line.
        of: Number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``2-of-4``.

        Raises:
            argparse.ArgumentTypeError: not a shard.
        """
        number, separator, of = text.partition("-of-")
        if not (separator and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise argparse.ArgumentTypeError(f"'{text}' is no shard such as 2-of-4")
        return cls(int(number), int(of))

    def take(self, elements: Sequence[Element]) -> list[tuple[int, Element]]:
        """The elements of this shard, each with its index among all `elements`."""
        return list(enumerate(elements))[self.number - 1 :: self.of]


WHOLE = Shard(1, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an evaluation in shards."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--shard", type=Shard.parse, default=WHOLE, help="evaluate only this shard of the prompts: 2-of-4"
    )
    group.add_argument(
        "--join", type=Path, nargs="+", help="measure nothing, join the records of all shards (in order)"
    )


def join(run: Run, paths: Sequence[Path]) -> None:
    """Write the record of an evaluation from the records of its shards.

    Costs are means over all prompts. If a shard crashed, the evaluation crashed.

    Raises:
        UserError: a shard is missing, damaged, of another spec, or ran on another kind of device.
    """
    shards = [read_record(path, SdtpRecord) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if shard.digests.job != run.job.digest:
            raise UserError(f"{path}: a shard of another experiment; delete it and run snakemake again")
        if shard.environment.device != shards[0].environment.device:
            raise UserError(
                f"{path}: measured on '{shard.environment.device}', the first shard on"
                f" '{shards[0].environment.device}'; let all shards run on one kind of machine"
            )
    crashed = next((shard for shard in shards if shard.outcome.status == "crashed"), None)
    if crashed is not None:
        write_record(run.out, crashed)
        return
    rows = _interleave([read_rows(path, shard) for path, shard in zip(paths, shards, strict=True)])
    totals = shards[0].totals.model_copy(
        update={
            "prefill_flops": _mean(shards, lambda totals: totals.prefill_flops),
            "kv_bytes": _mean(shards, lambda totals: totals.kv_bytes),
            "retrieval": tuple(_interleave([shard.totals.retrieval for shard in shards])),
            "peak_memory_bytes": max(shard.totals.peak_memory_bytes for shard in shards),
        }
    )
    seconds = sum(shard.environment.seconds for shard in shards)
    record = shards[0].model_copy(
        update={
            "samples": tuple(_interleave([shard.samples for shard in shards])),
            "totals": totals,
            "environment": shards[0].environment.model_copy(update={"seconds": seconds}),
            "digests": digests_of(run),
            "side": None,
        }
    )
    write_record(run.out, record, rows)


def _interleave(shards: Sequence[Sequence[Element]]) -> list[Element]:
    """Undo `Shard.take`."""
    longest = max(len(shard) for shard in shards)
    return [shard[index] for index in range(longest) for shard in shards if index < len(shard)]


def _mean(shards: Sequence[SdtpRecord], value: Callable) -> float:
    return fmean([value(shard.totals) for shard in shards], weights=[len(shard.samples) for shard in shards])
