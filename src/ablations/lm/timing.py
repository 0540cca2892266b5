"""Interleaved timing on a device that nobody else of ours is timing on."""

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
    """Hold the file lock of `device` on this host, so that no two processes of ours measure at once."""
    with FileLock(lock_folder() / f"{device_key(device)}.lock"):
        yield


def stopwatch(device: torch.device, work: Callable[[], Result]) -> tuple[Result, float]:
    """Run `work`; return its result and its seconds, the device synchronised before and after."""
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_pairs(
    device: torch.device,
    arm: Callable[[], Result],
    reference: Callable[[], Result],
    repeats: int,
    arm_first: bool,
) -> Iterator[Pair[Result]]:
    """Time `arm` and `reference` interleaved: A B B A A B ..., or B A A B ... unless `arm_first`.

    Callers alternate `arm_first` from document to document, so that a single pair each favours neither.

    Yields:
        Each pair as (arm, reference), a result and its seconds each.
    """
    for index in range(repeats):
        if (index % 2 == 0) == arm_first:
            first = stopwatch(device, arm)
            yield first, stopwatch(device, reference)
        else:
            second = stopwatch(device, reference)
            yield stopwatch(device, arm), second
