"""Devices are claimed by one process at a time; the devices of these tests are names."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from ablations.core.errors import UserError
from ablations.lm.claims import claim, lock_folder
from ablations.lm.device import device_key, pick_device

HOLD = """
import sys
from ablations.lm.claims import claim
print(*claim(sys.argv[2:], int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path, monkeypatch) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts processes that claim `count` of the devices until they are killed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = []

    def start(count: int, *devices: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", HOLD, str(count), *devices]
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_never_share_a_device(hold):
    first, second = hold(1, "a", "b"), hold(1, "a", "b")
    places = [process.stdout.readline() for process in (first, second)]
    assert sorted(places) == ["0\n", "1\n"]
    third = hold(1, "a", "b")
    assert third.stderr.readline() == "waiting for 1 of 2 GPUs: other jobs use them\n"
    # However a process ends, what it claimed is free again.
    second.kill()
    assert third.stdout.readline() == places[1]
    assert first.poll() is None


def test_devices_are_known_by_name_not_by_index(hold):
    assert hold(1, "a", "b").stdout.readline() == "0\n"
    # Here "a" is hidden.
    assert hold(1, "b").stdout.readline() == "0\n"
    assert hold(1, "b", "a", "c").stdout.readline() == "2\n"


def test_a_process_that_needs_two_devices_claims_none_before_both_are_free(hold):
    single = hold(1, "a", "b")
    assert single.stdout.readline() == "0\n"
    pair = hold(2, "a", "b")
    assert pair.stderr.readline().startswith("waiting for 2 of 2")
    assert hold(1, "b").stdout.readline() == "0\n"
    single.kill()
    assert hold(1, "a").stdout.readline() == "0\n"


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(UserError, match=r"^3 devices are needed, but this process sees 2$"):
        claim(["a", "b"], 3)


def test_a_job_picks_a_free_gpu_by_its_identity(hold, monkeypatch):
    set_devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    identity = {0: "x", 1: "y", 2: "z"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=identity[device.index])
    )
    monkeypatch.setattr(torch.cuda, "set_device", set_devices.append)
    monkeypatch.setattr("ablations.lm.claims._held_locks", [])
    assert hold(1, "cuda-x").stdout.readline() == "0\n"
    pick_device.cache_clear()
    try:
        assert pick_device() == pick_device() == torch.device("cuda", 1)
    finally:
        pick_device.cache_clear()
    assert set_devices == [1]
    assert device_key(torch.device("cuda", 2)) == "cuda-z"


def test_the_lock_of_the_cpu_keeps_its_name(hold):
    assert device_key(torch.device("cpu")) == "cpu-0"
    with FileLock(lock_folder() / "cpu-0.lock"):
        assert [path.name for path in lock_folder().iterdir()] == ["cpu-0.lock"]
