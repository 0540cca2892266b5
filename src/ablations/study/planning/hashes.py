"""SHA-256 of files, remembered by size and time so that parsing the Snakefile stays quick."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.study.files import canonical_json, sha256_file, write_text_if_changed
from ablations.study.planning.stages import RESULTS

_MEMORY = RESULTS / "hashes.json"


class Hashes:
    """Hashes of the files of one working directory; a file of the same size and time is not read again."""

    def __init__(self) -> None:
        try:
            self._known: dict[str, list] = json.loads(_MEMORY.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def sha256(self, file: Path) -> str:
        """SHA-256 of a file's bytes, hexadecimal."""
        stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(file))
        if known is not None and known[:2] == state:
            return known[2]
        digest = sha256_file(file)
        self._known[str(file)] = [*state, digest]
        return digest

    def save(self) -> None:
        """Remember what was read."""
        write_text_if_changed(_MEMORY, canonical_json(self._known))


@contextmanager
def remembered() -> Iterator[Hashes]:
    """Hashes that are saved at the end."""
    hashes = Hashes()
    yield hashes
    hashes.save()
