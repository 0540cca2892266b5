"""A document of a source, before the corpus is deduplicated and split."""

from collections.abc import Iterator
from typing import NamedTuple


class RawDocument(NamedTuple):
    """One document of a source.

    Attributes:
        id: Stable identifier, unique within the source.
        kind: What sort of document it is.
        text: The text.
    """

    id: str
    kind: str
    text: str


def cut_at_lines(text: str, limit: int) -> Iterator[str]:
    """Cut `text` into pieces of at most `limit` characters, at line ends where a piece has one."""
    start = 0
    while len(text) - start > limit:
        end = text.rfind("\n", start, start + limit) + 1 or start + limit
        yield text[start:end]
        start = end
    yield text[start:]
