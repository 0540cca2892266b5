"""Devices of a host that one process at a time may use, by locks that end with the process.

Snakemake counts GPUs but does not say which one a job may use; Slurm without cgroups may show all of them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ablations.study.errors import UserError

# Released by the operating system, however the process ends.
_held: list[FileLock] = []


def lock_folder() -> Path:
    """Folder of this user's locks on this host."""
    # The temporary folder is the host's own, where a home may be shared by many hosts.
    folder = Path(tempfile.gettempdir()) / f"ablations-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def claim(devices: Sequence[str], count: int) -> list[int]:
    """Take devices that no other process has claimed, until this one ends; wait while there are too few.

    Args:
        devices: Names that are the same in every process of the host, in this process's order.
        count: How many to take. All or none are taken, so that two processes never wait for each other.

    Returns:
        Their places in `devices`, rising.

    Raises:
        UserError: there are not so many.
    """
    if count > len(devices):
        raise UserError(f"{count} devices are needed, but this process sees {len(devices)}")
    told = False
    while True:
        taken = _take_free(devices, count)
        if len(taken) == count:
            _held.extend(taken.values())
            return list(taken)
        if not told:
            told = True
            print(
                f"waiting for {count} of {len(devices)} GPUs: other jobs use them",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(0.5)


def _take_free(devices: Sequence[str], count: int) -> dict[int, FileLock]:
    """Locks of the first `count` free devices by their place; none if fewer are free."""
    taken: dict[int, FileLock] = {}
    folder = lock_folder()
    # One process chooses at a time: what another holds only to try would look taken.
    with FileLock(folder / "choosing.lock"):
        for place, device in enumerate(devices):
            if len(taken) == count:
                break
            lock = FileLock(folder / f"claimed-{device}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            taken[place] = lock
        if len(taken) < count:
            for lock in taken.values():
                lock.release()
            taken.clear()
    return taken
