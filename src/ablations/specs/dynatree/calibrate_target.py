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
    """Timed forwards of each size; the median counts."""


class TargetCostSpec(TargetTiming, PromptSets):
    """Job of `ablations.dynatree.calibrate_target`: what the target's forwards cost.

    The text of its prompts fills the cache.
    """

    compute: Compute
    """How the job computes."""


def row_counts(most: int) -> list[int]:
    """Rows of timed forwards: all up to 8, then four to every doubling, and `most`."""
    counts = {round(8 * 2 ** (step / 4)) for step in range(64)} | set(range(1, 9)) | {most}
    return sorted(count for count in counts if count <= most)


def prompt_lengths(longest: int) -> list[int]:
    """Tokens of timed prompts: eight equal steps up to the longest."""
    return sorted({max(1, round(longest * step / 8)) for step in range(1, 9)})
