"""A data set through `datasets.load_dataset`."""

import re
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from itertools import islice
from typing import Any

from ablations.core.errors import UserError, out_of_memory
from ablations.lm.texts.raw import RawDocument
from ablations.specs.lm import FILL_IN, DatasetText
from ablations.specs.userfiles import user_path


def dataset_documents(source: DatasetText) -> Iterator[RawDocument]:
    """One document per row, or per group of consecutive rows of one text with `source.pack` characters.

    Rows are streamed, so only the rows that are used are fetched.

    Raises:
        UserError: `datasets` is not installed, no revision was chosen, the data set cannot be loaded, or it
            lacks a column.
    """
    if source.revision == FILL_IN:
        raise UserError(
            f"data set '{source.name}': put the commit that you want into the text's key 'revision'"
            f" (https://huggingface.co/datasets/{source.name}/commits/main), or null for the newest"
        )
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError("texts with 'source: dataset' need the extra ablations[hub]; install it") from None
    datasets.disable_progress_bars()
    texts = (_text(row, source) for row in islice(_read(source, datasets.load_dataset), source.documents))
    yield from (
        _rows(texts, source.hub_split)
        if source.pack is None
        else _packed(texts, source.hub_split, source.pack, source.begins)
    )


def _read(source: DatasetText, load: Callable[..., Iterable[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Rows of a data set, with every exception turned into a `UserError`: a parser may raise on any row."""
    folder = user_path(source.name)
    # `datasets` reads a path as a pattern: unescaped, brackets would match another file or none.
    file = None if source.data_files is None else escape(str(user_path(source.data_files)))
    try:
        yield from load(
            str(folder) if folder.is_dir() else source.name,
            source.config,
            data_files=file,
            split=source.hub_split,
            revision=source.revision,
            streaming=True,
        )
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(f"{error} ({type(error).__name__})".split())
        raise UserError(
            f"data set '{source.name}' cannot be read: {reason[:300]};"
            " correct the keys 'name', 'config', 'data_files' and 'hub_split', or check the network"
        ) from None


def _text(row: dict[str, Any], source: DatasetText) -> str:
    columns = (source.text,) if isinstance(source.text, str) else source.text
    for column in columns:
        if not isinstance(row.get(column), str):
            raise UserError(
                f"data set '{source.name}' has no text in column '{column}'"
                f" (columns: {sorted(row)}); correct the key 'text'"
            )
    return row[columns[0]] if len(columns) == 1 else "\n\n".join(row[name] for name in columns if row[name])


def _rows(texts: Iterable[str], split: str) -> Iterator[RawDocument]:
    for number, text in enumerate(texts):
        yield RawDocument(f"{split}:{number}", "row", text)


def _packed(texts: Iterable[str], split: str, characters: int, begins: str | None) -> Iterator[RawDocument]:
    """Rows of one text joined by line ends; rows at its end that are too few for a document are dropped."""
    rows: list[str] = []
    first, length = 0, 0
    for number, text in enumerate(texts):
        if begins is not None and re.search(begins, text):
            first, rows, length = number, [], 0
        rows.append(text if text.endswith("\n") else f"{text}\n")
        length += len(rows[-1])
        if length >= characters:
            yield RawDocument(f"{split}:{first}-{number}", "rows", "".join(rows))
            first, rows, length = number + 1, [], 0
