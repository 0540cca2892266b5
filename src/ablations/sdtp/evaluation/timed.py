"""Pruned prefills timed beside unpruned ones."""

from collections.abc import Callable
from typing import TypeVar

import torch

from ablations.lm.timing import timed_pairs
from ablations.study.contracts.sdtp import TimedPair

Result = TypeVar("Result")


def timed_prefills(
    device: torch.device,
    arm: Callable[[], Result],
    dense: Callable[[], Result],
    warmup: int,
    repeats: int,
    number: int,
) -> tuple[tuple[Result, float], tuple[TimedPair, ...]]:
    """Prefill a window in turns, pruned and unpruned.

    Args:
        device: Where both run.
        arm: Pruned prefill.
        dense: Unpruned prefill.
        warmup: Untimed pairs before the first timed one.
        repeats: Timed pairs.
        number: Number of the window, which decides who comes first.

    Returns:
        What the last pruned prefill gave with its seconds, and the seconds of each timed pair.
    """
    measured = list(timed_pairs(device, arm, dense, warmup + repeats, arm_first=(number + warmup) % 2 == 0))
    pairs = tuple(TimedPair(arm=pruned, reference=other) for (_, pruned), (_, other) in measured[warmup:])
    return measured[-1][0], pairs
