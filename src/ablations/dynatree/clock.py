"""Times of the phases of decoding, measured without waiting for the device between phases."""

from collections import defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

import torch

Result = TypeVar("Result")


class PhaseClock:
    """Adds up the time of each named phase.

    On CUDA each phase is bracketed by events that are read once at the end: waiting for the device in every
    round would slow decoding down.

    Args:
        device: Device that the work runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def time(self, phase: str, work: Callable[[], Result]) -> Result:
        """Run `work` and add its time to `phase`."""
        if self._cuda:
            return self._time_on_device(phase, work)
        start = perf_counter()
        result = work()
        self._seconds[phase] += perf_counter() - start
        return result

    def seconds(self, phase: str) -> float:
        """Seconds of `phase` so far; waits for the device."""
        for name, start, end in self._events:
            end.synchronize()
            self._seconds[name] += start.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds[phase]

    def _time_on_device(self, phase: str, work: Callable[[], Result]) -> Result:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = work()
        end.record()
        self._events.append((phase, start, end))
        return result
