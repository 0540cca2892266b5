"""Interleaved timing on a device that nobody else of ours is timing on."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock

Result = TypeVar("Result")


@contextmanager
def device_lock(device: torch.device) -> Iterator[None]:
    """Hold the file lock of `device` on this host, so that no two processes of ours measure at once."""
    # The temporary folder is the host's own, where a home may be shared by many hosts.
    folder = Path(tempfile.gettempdir()) / f"ablations-{getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / f"{device.type}-{device.index or 0}.lock"):
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


def alternate(
    repeats: int, arm: Callable[[], Result], reference: Callable[[], Result]
) -> Iterator[tuple[Result, Result]]:
    """Run `arm` and `reference` in pairs, A B B A A B ..., and yield each pair as (arm, reference)."""
    for index in range(repeats):
        if index % 2 == 0:
            first = arm()
            second = reference()
            yield first, second
        else:
            second = reference()
            first = arm()
            yield first, second
