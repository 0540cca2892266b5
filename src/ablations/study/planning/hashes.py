"""SHA-256 of files, remembered by size and time so that parsing the Snakefile stays quick."""

import json
import os
from pathlib import Path

from ablations.study.files import canonical_json, keep_in_mind, sha256_file
from ablations.study.planning.stages import RESULTS

_MEMORY = RESULTS / "hashes.json"


class Hashes:
    """Hashes of the files of one working directory; a file of the same size and time is not read again."""

    def __init__(self) -> None:
        self._here = os.path.realpath(".")
        self._known: dict[str, list] = {}
        try:
            found = json.loads(_MEMORY.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(found, dict):
            self._known = {name: state for name, state in found.items() if isinstance(state, list)}

    def sha256(self, file: Path) -> str:
        """SHA-256 of a file's bytes, hexadecimal."""
        stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        # By where the bytes lie: a link that leads elsewhere now leads to another file.
        name = os.path.realpath(file).removeprefix(f"{self._here}{os.sep}")
        known = self._known.get(name, [])
        if len(known) == 3 and known[:2] == state:
            return known[2]
        digest = sha256_file(file)
        self._known[name] = [*state, digest]
        return digest

    def remember(self) -> None:
        """Write down what was read, for the next parse; whoever only looks leaves it."""
        keep_in_mind(_MEMORY, canonical_json(self._known))
