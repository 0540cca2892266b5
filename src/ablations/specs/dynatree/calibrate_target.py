"""Spec of `ablations.dynatree.calibrate_target`, and the sizes of forward that it times."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from ablations.core.contract import Contract
from ablations.specs.dynatree.prompts import PromptSets
from ablations.specs.lm import Compute


def check_rising(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Check, for a validator, that numbers rise.

    Raises:
        ValueError: they do not.
    """
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("numbers must rise")
    return numbers


Rising = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(check_rising)]


class TargetTiming(Contract):
    """How costs of the target's forwards are measured."""

    prefixes: Rising = (64, 256)
    """Tokens in the cache while forwards are timed; between and beyond them costs follow a straight line."""
    most_rows: PositiveInt = 257
    """Most rows of a timed forward: the largest tree and its root."""
    repeats: PositiveInt = 4
    """Timed forwards of each size from 32 rows on, and more of those below; the median counts."""


class TargetCostSpec(TargetTiming, PromptSets):
    """Job of `ablations.dynatree.calibrate_target`: what the target's forwards cost.

    The text of its prompts fills the cache.
    """

    compute: Compute
    """How the job computes."""


def row_counts(most: int) -> list[int]:
    """Rows of timed forwards: all up to 16, then four to every doubling, and `most`."""
    # Costs beyond `most` follow the line through the last two counts, which should not be neighbours.
    many = {round(16 * 2 ** (step / 4)) for step in range(64)}
    return sorted(set(range(1, min(most, 16) + 1)) | {count for count in many if 1.1 * count < most} | {most})


def timings(rows: int, repeats: int) -> int:
    """How often a forward is timed: few rows oftener, as they are cheap and most forwards have few."""
    return round(repeats * max(1.0, (32 / rows) ** 0.5))


def passes(counts: list[int], repeats: int) -> list[list[int]]:
    """Rows of the forwards that are timed one after another, in passes; a size's timings spread over all."""
    total = timings(counts[0], repeats)
    return [
        [
            rows
            for rows in counts
            if (number + 1) * timings(rows, repeats) // total > number * timings(rows, repeats) // total
        ]
        for number in range(total)
    ]


def prompt_lengths(longest: int) -> list[int]:
    """Tokens of timed prompts: eight equal steps up to the longest."""
    return sorted({max(1, round(longest * step / 8)) for step in range(1, 9)})
