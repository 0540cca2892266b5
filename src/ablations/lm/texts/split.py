"""From a source's documents to a corpus: every paragraph once, a stable order, a split by document."""

import hashlib
import re
from collections.abc import Iterable, Iterator

from ablations.lm.document import Document
from ablations.lm.texts.raw import RawDocument
from ablations.study.contracts.lm import Split

# The rest is held out.
TRAIN_SHARE = 0.6
VALIDATION_SHARE = 0.1

_BLANK_LINES = re.compile(r"(\n(?:[ \t]*\n)+)")


def without_repeats(documents: Iterable[RawDocument]) -> Iterator[RawDocument]:
    """Drop every paragraph that occurred before, so that no two documents share one.

    A paragraph ends at a blank line; leading and trailing white space makes no difference.
    """
    seen: set[str] = set()
    for document in documents:
        # Paragraphs and the blank lines after them alternate; the last paragraph has none.
        pieces = [*_BLANK_LINES.split(document.text), ""]
        kept = []
        for paragraph, gap in zip(pieces[::2], pieces[1::2], strict=True):
            content = paragraph.strip()
            if content in seen:
                continue
            if content:
                seen.add(content)
            kept.append(paragraph + gap)
        yield document._replace(text="".join(kept))


def in_stable_order(documents: Iterable[RawDocument], seed: int, split: Split | None) -> list[Document]:
    """Order documents by a hash of seed and id, which also decides the split of each.

    Neither depends on what else is in the corpus: a document that is added or removed moves no other.

    Args:
        documents: Documents with unique ids.
        seed: Seed of order and split.
        split: Put all into this split; None splits by document, 60% train, 10% validation, 30% held out.
    """
    places = sorted((_place(seed, document.id), document) for document in documents)
    return [
        Document(id=document.id, kind=document.kind, split=split or _split_at(place), text=document.text)
        for place, document in places
    ]


def _place(seed: int, identifier: str) -> float:
    digest = hashlib.sha256(f"{seed}\n{identifier}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _split_at(place: float) -> Split:
    if place < TRAIN_SHARE:
        return "train"
    return "validation" if place < TRAIN_SHARE + VALIDATION_SHARE else "heldout"
