"""Checkpoints of a training, so that a killed job resumes from its last one."""

import hashlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ablations.core.files import atomic_path

INTERVAL = 180.0
"""Seconds between two checkpoints, the most work that can be lost."""


class Checkpoint:
    """One file that always holds a complete state: it is replaced atomically, never rewritten.

    Args:
        path: Path of the file. Its name must identify the training, since the content is not checked for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = time.monotonic()

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save what `state` returns if the last save was more than `INTERVAL` seconds ago."""
        if time.monotonic() - self._saved < INTERVAL:
            return
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        content = buffer.getvalue()
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state with tensors on the CPU; None if there is none.

        A damaged file is reported and ignored: training from the start gives the same weights.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        expected, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != expected:
            print(f"{self.path}: damaged checkpoint; training starts anew", file=sys.stderr)
            return None
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
