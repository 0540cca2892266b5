"""How prefill time is measured, and what a measurement is."""

from pydantic import PositiveFloat, PositiveInt

from ablations.core.contract import Contract


class TimedRounds(Contract):
    """How often a prefill is timed: arms and their reference side by side in one process."""

    repeats: PositiveInt = 2
    """Rounds per document, the order rotating; of two, a third where an arm's differ by more than 5 %."""
    warmup: PositiveInt = 1
    """Untimed pairs before the first timed one; before that of each document where scores decide how many
    tokens are kept, as nothing is timed that has not run with the same numbers of rows before."""


class Timing(TimedRounds):
    """Which prefills are timed, and how."""

    documents: PositiveInt
    """Held-out documents that are timed (the first of the evaluated ones)."""


class TimedPair(Contract):
    """One interleaved measurement, seconds."""

    arm: PositiveFloat
    """Pruned prefill."""
    reference: PositiveFloat
    """Unpruned prefill, measured beside it."""
    again: PositiveFloat | None = None
    """The unpruned prefill once more in the same round, as if it were an arm: its ratio to `reference` is the
    noise. Null where it was not measured."""
