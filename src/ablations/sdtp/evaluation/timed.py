"""Pruned prefills timed against unpruned ones."""

from collections.abc import Callable
from typing import TypeVar

import torch

from ablations.lm.timing import timed_pairs
from ablations.specs.sdtp.timing import TimedPair

Result = TypeVar("Result")


def timed_prefills(
    device: torch.device,
    arm: Callable[[], Result],
    dense: Callable[[], Result],
    warmup: int,
    repeats: int,
    number: int,
) -> tuple[tuple[Result, float], tuple[TimedPair, ...]]:
    """Time pruned and unpruned prefills of a window in turns.

    Args:
        device: Device of both.
        arm: Pruned prefill.
        dense: Unpruned prefill.
        warmup: Untimed pairs before the first timed one.
        repeats: Timed pairs.
        number: Number of the window, which decides which prefill runs first.

    Returns:
        The last pruned prefill's result and seconds, and the seconds of each timed pair.
    """
    measured = list(timed_pairs(device, arm, dense, warmup + repeats, arm_first=(number + warmup) % 2 == 0))
    pairs = tuple(TimedPair(arm=pruned, reference=plain) for (_, pruned), (_, plain) in measured[warmup:])
    return measured[-1][0], pairs
