"""A data set through `datasets.load_dataset`."""

import re
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from itertools import islice
from typing import Any

from ablations.lm.texts.raw import RawDocument
from ablations.study.cli import out_of_memory
from ablations.study.contracts.lm import FILL_IN, DatasetText
from ablations.study.errors import UserError
from ablations.study.userfiles import user_path


def dataset_documents(source: DatasetText) -> Iterator[RawDocument]:
    """One document per row, or per `source.pack` characters of rows of one text that follow each other.

    Rows are streamed, so that the first few hundred of a large data set cost no more than they are.

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
    """Rows of a data set, errors turned into one line: its parsers raise what they like, on any row."""
    folder = user_path(source.name)
    # Patterns otherwise: a name with brackets would be another file's, or nobody's.
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
    """Rows of one text joined by line ends; what is left at its end and too short is dropped."""
    held: list[str] = []
    first, length = 0, 0
    for number, text in enumerate(texts):
        if begins is not None and re.search(begins, text):
            first, held, length = number, [], 0
        held.append(text if text.endswith("\n") else f"{text}\n")
        length += len(held[-1])
        if length >= characters:
            yield RawDocument(f"{split}:{first}-{number}", "rows", "".join(held))
            first, held, length = number + 1, [], 0
