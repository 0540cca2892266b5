"""Local files: a text file, a JSON lines file, or a folder of both."""

from collections.abc import Iterator
from pathlib import Path

from ablations.lm.texts.jsonl import jsonl_documents
from ablations.lm.texts.raw import RawDocument, cut_at_lines
from ablations.study.contracts.lm import LocalText
from ablations.study.errors import UserError
from ablations.study.userfiles import visible_files

JSON_LINES = ".jsonl"
SUFFIXES = frozenset({".txt", ".md", ".rst", ".py", JSON_LINES})


def local_documents(source: LocalText) -> Iterator[RawDocument]:
    """One document per text file (several where it is longer than the window) and per JSON lines record.

    Raises:
        UserError: nothing is there, the folder holds no such files, or a file is not UTF-8.
    """
    root = Path(source.path)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; correct the text's key 'path'")
    found = visible_files(root).values() if root.is_dir() else [root]
    files = [path for path in found if root.is_file() or path.suffix in SUFFIXES]
    if not files:
        raise UserError(
            f"{root}: holds no {', '.join(sorted(SUFFIXES))} files; correct the text's key 'path'"
        )
    for path in files:
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        if path.suffix == JSON_LINES:
            with path.open("rb") as lines:
                yield from jsonl_documents(lines, name, source.text)
        else:
            yield from _text_file(path, name, source.window)


def _text_file(path: Path, name: str, window: int) -> Iterator[RawDocument]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file"
        ) from None
    for number, piece in enumerate(cut_at_lines(text, window), start=1):
        yield RawDocument(f"{name}:{number}" if len(text) > window else name, "file", piece)
