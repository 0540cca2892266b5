"""Interleaving, the stopwatch and the lock of the device."""

import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from ablations.lm.timing import device_lock, stopwatch, timed_pairs

CPU = torch.device("cpu")


@pytest.mark.parametrize(("arm_first", "order"), [(True, "ABBAAB"), (False, "BAABBA")])
def test_pairs_swap_their_order_every_other_time(arm_first: bool, order: str) -> None:
    calls = []

    def arm() -> str:
        calls.append("A")
        return "arm"

    def reference() -> str:
        calls.append("B")
        return "reference"

    pairs = list(timed_pairs(CPU, arm, reference, 3, arm_first))
    assert [(first[0], second[0]) for first, second in pairs] == [("arm", "reference")] * 3
    assert all(seconds >= 0 for pair in pairs for _, seconds in pair)
    assert "".join(calls) == order


def test_stopwatch() -> None:
    result, seconds = stopwatch(CPU, lambda: time.sleep(0.05) or 7)
    assert result == 7
    assert seconds >= 0.05


def test_the_device_is_locked_while_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with device_lock(CPU):
        (path,) = tmp_path.glob("*/*.lock")
        with pytest.raises(Timeout):
            FileLock(path).acquire(timeout=0)
    with FileLock(path).acquire(timeout=0):
        pass
