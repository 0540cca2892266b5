"""How prefill time is measured, and what a measurement is."""

from pydantic import PositiveFloat, PositiveInt

from ablations.core.contract import Contract


class Timing(Contract):
    """How prefill time is measured: arm and reference interleaved in one process."""

    documents: PositiveInt
    """Held-out documents that are timed (the first of the evaluated ones)."""
    repeats: PositiveInt
    """Pairs per document, the order alternating."""
    warmup: PositiveInt = 1
    """Untimed pairs before the first timed one; before that of each document where scores decide how many
    tokens are kept, as nothing is timed that has not run with the same numbers of rows before."""


class TimedPair(Contract):
    """One interleaved measurement, seconds."""

    arm: PositiveFloat
    """Pruned prefill."""
    reference: PositiveFloat
    """Unpruned prefill, measured beside it."""
