"""Claims of a host's devices: one process at a time holds a device, by a file lock that ends with it.

Snakemake counts GPUs but does not say which one a job may use; Slurm without cgroups may show all of them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ablations.core.errors import UserError

# The operating system releases these locks, however the process ends.
_held_locks: list[FileLock] = []


def lock_folder() -> Path:
    """Folder of this user's locks on this host."""
    # Many hosts may share a home folder; the temporary folder belongs to this host alone.
    folder = Path(tempfile.gettempdir()) / f"ablations-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def claim(devices: Sequence[str], count: int) -> list[int]:
    """Claim devices until this process ends; wait while too few are free.

    Args:
        devices: Names that are the same in every process of the host, in this process's order.
        count: How many to claim. All are claimed at once or none, so that two processes never wait for each
            other.

    Returns:
        Indices of the claimed devices in `devices`, ascending.

    Raises:
        UserError: `devices` has fewer than `count`.
    """
    if count > len(devices):
        raise UserError(f"{count} devices are needed, but this process sees {len(devices)}")
    announced = False
    while True:
        locks = _lock_free(devices, count)
        if len(locks) == count:
            _held_locks.extend(locks.values())
            return list(locks)
        if not announced:
            announced = True
            print(
                f"waiting for {count} of {len(devices)} GPUs: other jobs use them",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(0.5)


def _lock_free(devices: Sequence[str], count: int) -> dict[int, FileLock]:
    """Held locks of the first `count` free devices, by the device's index; none if fewer are free."""
    locks: dict[int, FileLock] = {}
    folder = lock_folder()
    # One process chooses at a time: a device that another process locks only to try it would look claimed.
    with FileLock(folder / "choosing.lock"):
        for index, device in enumerate(devices):
            if len(locks) == count:
                break
            lock = FileLock(folder / f"claimed-{device}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            locks[index] = lock
        if len(locks) < count:
            for lock in locks.values():
                lock.release()
            locks.clear()
    return locks
