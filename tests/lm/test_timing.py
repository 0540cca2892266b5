"""Interleaving, the stopwatch and the lock of the device."""

import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from ablations.lm.timing import alternate, device_lock, stopwatch

CPU = torch.device("cpu")


def test_alternate_swaps_the_order_of_every_other_pair() -> None:
    calls = []

    def arm() -> str:
        calls.append("A")
        return "arm"

    def reference() -> str:
        calls.append("B")
        return "reference"

    assert list(alternate(3, arm, reference)) == [("arm", "reference")] * 3
    assert "".join(calls) == "ABBAAB"


def test_stopwatch() -> None:
    result, seconds = stopwatch(CPU, lambda: time.sleep(0.05) or 7)
    assert result == 7
    assert 0.05 <= seconds < 1.0


def test_the_device_is_locked_while_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with device_lock(CPU):
        (path,) = tmp_path.glob("*/*.lock")
        with pytest.raises(Timeout):
            FileLock(path).acquire(timeout=0)
    with FileLock(path).acquire(timeout=0):
        pass
