"""Blocks: the results of a series on runs of its items, each written once and never changed.

A *series* is one experiment (and seed) under one measure. Its items (documents, retrieval prompts, decoding
prompts) have numbers that do not depend on how many are asked for. A block holds some of them in a row and is
a record, `FIRST-END.json` in the folder of its series, for items FIRST to END - 1. A crash of the measured
method is a block `FIRST-crashed.json`. What is measured follows from the names of the files.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple

from ablations.core.errors import UserError
from ablations.core.record import AnyRecord, read_record, read_rows

Span = tuple[int, int]
"""Number of the first item, and the number after the last one."""

_NAME = re.compile(r"(\d+)-(\d+|crashed)\.json")


class Cover(NamedTuple):
    """Which items of a series are measured.

    Attributes:
        spans: Spans of its blocks, in order; they may overlap where the size of blocks was changed.
        crashed: Item at which the measured method crashed first; None where it did not.
    """

    spans: tuple[Span, ...]
    crashed: int | None


def block_path(folder: Path, span: Span) -> Path:
    """Path of the block of `span` in the folder of its series."""
    return folder / f"{span[0]}-{span[1]}.json"


def crash_path(folder: Path, number: int) -> Path:
    """Path of the block of a crash at item `number`."""
    return folder / f"{number}-crashed.json"


def cover(folder: Path) -> Cover:
    """What the names of the files in the folder of a series say; nothing where there is no folder."""
    names = [_NAME.fullmatch(path.name) for path in folder.glob("*.json")]
    found = [(int(name[1]), name[2]) for name in names if name]
    spans = sorted((first, int(end)) for first, end in found if end != "crashed")
    return Cover(tuple(spans), min((first for first, end in found if end == "crashed"), default=None))


def missing(folder: Path, count: int, size: int) -> tuple[Span, ...]:
    """Spans of the first `count` items that no block holds; none where the method crashed on one of them.

    Args:
        folder: Folder of the series.
        count: How many items are wanted.
        size: Most items of a block; no span crosses a multiple of it.
    """
    spans, crashed = cover(folder)
    if crashed is not None and crashed < count:
        return ()
    measured = {number for first, end in spans for number in range(first, end)}
    result: list[Span] = []
    for number in range(count):
        if number in measured:
            continue
        if result and result[-1][1] == number and number % size:
            result[-1] = (result[-1][0], number + 1)
        else:
            result.append((number, number + 1))
    return tuple(result)


@dataclass(frozen=True)
class Joined(Generic[AnyRecord]):
    """The first items of a series.

    Attributes:
        blocks: The blocks that hold them, in order; the block of the crash where there was one.
        samples: One per item; empty after a crash.
        rows: Bulky rows of the items, one per item where blocks have a side file.
    """

    blocks: tuple[AnyRecord, ...]
    samples: tuple
    rows: tuple[dict, ...]

    @property
    def crashed(self) -> bool:
        """Whether the measured method crashed."""
        return self.blocks[0].outcome.status == "crashed"


def read_series(folder: Path, count: int, block_type: type[AnyRecord]) -> Joined[AnyRecord]:
    """Read the first `count` items of a series from its blocks.

    Raises:
        UserError: an item is not measured, or a block is damaged.
    """
    spans, crashed = cover(folder)
    if crashed is not None and crashed < count:
        return Joined((read_record(crash_path(folder, crashed), block_type),), (), ())
    blocks: list[AnyRecord] = []
    samples: list = []
    rows: list[dict] = []
    for first, end in spans:
        number = len(samples)
        if not first <= number < min(end, count):
            continue
        path = block_path(folder, (first, end))
        block = read_record(path, block_type)
        bulky = read_rows(path, block)
        if len(block.samples) != end - first or len(bulky) not in (0, end - first):
            raise UserError(f"{path}: not {end - first} samples; delete it and run snakemake again")
        last = min(end, count) - first
        blocks.append(block)
        samples += block.samples[number - first : last]
        rows += bulky[number - first : last]
    if len(samples) < count:
        raise UserError(
            f"{folder}: item {len(samples)} of {count} is not measured; run snakemake, which measures it"
        )
    return Joined(tuple(blocks), tuple(samples), tuple(rows))
