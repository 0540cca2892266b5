"""Local texts: a text file, a JSON lines file, or a folder of both."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ablations.core.errors import UserError
from ablations.lm.texts.jsonl import jsonl_documents
from ablations.lm.texts.raw import RawDocument, cut_at_lines
from ablations.specs.lm import LocalText
from ablations.specs.userfiles import user_path, visible_files

JSON_LINES = frozenset({".jsonl", ".ndjson"})
SUFFIXES = frozenset({".txt", ".md", ".rst", ".py"}) | JSON_LINES
"""Suffixes of files that are read in a folder, in upper or lower case."""
DATA = frozenset({".json", ".csv", ".tsv"})
"""Files of records that would pass for prose."""


def local_documents(source: LocalText) -> Iterator[RawDocument]:
    """One document per text file and per JSON lines record; a text file longer than the window gives several.

    Raises:
        UserError: the path does not exist, the folder holds no files that are read, or a file is not text or
            JSON lines in UTF-8.
    """
    root = user_path(source.path)
    for name, path in _files(root).items():
        suffix = path.suffix.lower()
        if suffix in JSON_LINES:
            with path.open("rb") as lines:
                yield from jsonl_documents(lines, name, source.text, where=source.where)
        elif root.is_file() and suffix in DATA:
            raise UserError(
                f"{path}: holds records, not prose; save them as JSON lines (.jsonl), or read the file with"
                " 'source: dataset'"
            )
        elif root.is_file() or suffix in SUFFIXES:
            yield from _text_file(path, name, source.window)


def files_not_read(source: LocalText) -> dict[str, int]:
    """Number of visible files in a folder that are not read, by their lower-case suffix.

    Raises:
        UserError: the path does not exist, or the folder holds no files that are read.
    """
    root = user_path(source.path)
    suffixes = (path.suffix.lower() for path in _files(root).values())
    return dict(
        sorted(Counter(suffix for suffix in suffixes if root.is_dir() and suffix not in SUFFIXES).items())
    )


def _files(root: Path) -> dict[str, Path]:
    """Visible files of a source by their path in it; at least one has a suffix that is read."""
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; correct the text's key 'path'")
    if not root.is_dir():
        return {root.name: root}
    files = visible_files(root)
    if not any(path.suffix.lower() in SUFFIXES for path in files.values()):
        raise UserError(
            f"{root}: holds no {', '.join(sorted(SUFFIXES))} files; correct the text's key 'path'"
        )
    return files


def _text_file(path: Path, name: str, window: int) -> Iterator[RawDocument]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file"
        ) from None
    if "\0" in text:
        raise UserError(f"{path}: not text in UTF-8 (it has zero bytes); convert the file")
    for number, piece in enumerate(cut_at_lines(text, window), start=1):
        yield RawDocument(f"{name}:{number}" if len(text) > window else name, "file", piece)
