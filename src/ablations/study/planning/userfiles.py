"""Hashes of the users' own files, remembered by size and time so that parsing stays quick."""

import json
from pathlib import Path

from ablations.study.errors import UserError
from ablations.study.files import canonical_json, sha256_file, sha256_text, write_text_if_changed
from ablations.study.planning.stages import RESULTS

_MEMORY = RESULTS / "hashes.json"


def content_hash(path: Path, key: str) -> str:
    """SHA-256 over the names and bytes of a file, or of all files in a folder.

    Args:
        path: File or folder.
        key: Configuration key that names it, for errors.

    Raises:
        UserError: nothing is there, or the folder is empty.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise UserError(f"{key}: {str(path)!r}: {error.strerror}; correct the path") from None
    if is_file:
        files = {path.name: path}
    elif path.is_dir():
        files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    else:
        raise UserError(f"{key}: {str(path)!r} does not exist")
    if not files:
        raise UserError(f"{key}: folder {str(path)!r} holds no files")
    memory = _remembered()
    hashes = {name: _hash(file, memory) for name, file in files.items()}
    write_text_if_changed(_MEMORY, canonical_json(memory))
    # One file is named by its bytes alone: renaming it changes nothing.
    return sha256_text(canonical_json(hashes if path.is_dir() else list(hashes.values())))


def _hash(file: Path, memory: dict[str, str]) -> str:
    stat = file.stat()
    stamp = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    if stamp not in memory:
        memory[stamp] = sha256_file(file)
    return memory[stamp]


def _remembered() -> dict[str, str]:
    try:
        return json.loads(_MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
