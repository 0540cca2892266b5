"""Interleaved timing, on a device that no other job of this project is timing on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from filelock import FileLock

from ablations.lm.claims import lock_folder
from ablations.lm.device import device_key

Result = TypeVar("Result")
Timed = tuple[Result, float]
Pair = tuple[Timed[Result], Timed[Result]]


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


def timed_pairs(
    device: torch.device,
    arm: Callable[[], Result],
    reference: Callable[[], Result],
    repeats: int,
    arm_first: bool,
) -> Iterator[Pair[Result]]:
    """Time `arm` (A) and `reference` (B) interleaved: A B B A A B ... with `arm_first`, else B A A B B A ...

    Callers alternate `arm_first` from document to document, so that one pair per document favours neither.

    Yields:
        Pairs (arm, reference); each is a result and its seconds.
    """
    for index in range(repeats):
        if (index % 2 == 0) == arm_first:
            first = stopwatch(device, arm)
            yield first, stopwatch(device, reference)
        else:
            second = stopwatch(device, reference)
            yield stopwatch(device, arm), second
