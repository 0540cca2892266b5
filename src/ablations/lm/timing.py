"""Timing side by side, on a device that no other job of this project is timing on."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch
from filelock import FileLock

from ablations.lm.claims import lock_folder
from ablations.lm.device import device_key

Result = TypeVar("Result")
Name = TypeVar("Name", bound=Hashable)

DIFFERENCE = 1.05
"""Ratio of an arm's slowest round to its fastest, both over the reference, above which it gets a third."""


class Round(NamedTuple, Generic[Result]):
    """An arm and the reference in one round; a result each, and its seconds.

    Attributes:
        arm: Result and seconds of the arm.
        reference: Result and seconds of the reference.
        again: Seconds of the reference's second run in the round.
    """

    arm: tuple[Result, float]
    reference: tuple[Result, float]
    again: float


@contextmanager
def device_lock(device: torch.device) -> Iterator[None]:
    """Hold the file lock of `device` on this host, so that no two jobs of this project measure at once."""
    with FileLock(lock_folder() / f"{device_key(device)}.lock"):
        yield


def stopwatch(device: torch.device, work: Callable[[], Result]) -> tuple[Result, float]:
    """Run `work` between two synchronisations of the device; return its result and its seconds."""
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until `device` has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_rounds(
    device: torch.device,
    reference: Callable[[], Result],
    arms: Mapping[Name, Callable[[], Result]],
    at_work: Callable[[Name], AbstractContextManager[None]],
    rounds: int,
    number: int,
) -> dict[Name, list[Round[Result]]]:
    """Time arms and their reference side by side, in rounds in which each runs once and the reference twice.

    What runs first moves on from round to round and from item to item. An arm whose ratios in two rounds
    differ by more than `DIFFERENCE` gets a third, with the reference beside it.

    Args:
        device: Device of all.
        reference: What every arm is compared with.
        arms: What is timed, by name.
        at_work: Context in which an arm runs. It may swallow an error of the arm, which then is in no further
            round and not in the result.
        rounds: How often each runs, at least once.
        number: Number of the item.

    Returns:
        The rounds of each arm, in order.
    """
    measured: dict[Name, list[Round[Result]]] = {name: [] for name in arms}
    # The median of more rounds than two withstands an outlier as it is.
    for index in range(3 if rounds == 2 else rounds):
        due = [name for name, done in measured.items() if index < rounds or _differ(done)]
        if not due:
            break
        timed: dict[Name, tuple[Result, float]] = {}
        references: list[tuple[Result, float]] = []
        for name in _order(due, number + index):
            if name is None:
                references.append(stopwatch(device, reference))
                continue
            with at_work(name):
                timed[name] = stopwatch(device, arms[name])
        for name in due:
            if name in timed:
                measured[name].append(Round(timed[name], references[0], references[1][1]))
            else:
                del measured[name]
    return measured


def _order(names: Sequence[Name], shift: int) -> list[Name | None]:
    """The names with the reference (None) before the first half and again before the second, rotated."""
    half = (len(names) + 1) // 2
    order = [None, *names[:half], None, *names[half:]]
    start = shift % len(order)
    return order[start:] + order[:start]


def _differ(rounds: Sequence[Round]) -> bool:
    ratios = [round.arm[1] / round.reference[1] for round in rounds]
    return math.log(max(ratios) / min(ratios)) > math.log(DIFFERENCE)
