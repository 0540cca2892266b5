"""From documents to a corpus: without repeated paragraphs, in a stable order, split by document."""

import hashlib
import re
from collections.abc import Iterable, Iterator

from ablations.lm.document import Document
from ablations.lm.texts.raw import RawDocument
from ablations.specs.lm import Split

# The remaining documents are held out.
TRAIN_SHARE = 0.6
VALIDATION_SHARE = 0.1

_BLANK_LINES = re.compile(r"(\n(?:[ \t]*\n)+)")


def without_repeats(documents: Iterable[RawDocument]) -> Iterator[RawDocument]:
    """Drop every paragraph that occurred before, so that no two documents share one.

    A paragraph ends at a blank line; leading and trailing white space makes no difference.
    """
    seen: set[str] = set()
    for document in documents:
        # Paragraphs and the blank lines after them alternate; no blank lines follow the last paragraph.
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
    """Order documents by a hash of seed and id; the hash also decides the split of a document.

    Order and split do not depend on the other documents: adding or removing a document moves no other.

    Args:
        documents: Documents with unique ids.
        seed: Seed of order and split.
        split: Split of all documents; None splits by document, 60% train, 10% validation, 30% held out.
    """
    ordered = sorted((_unit_hash(seed, document.id), document) for document in documents)
    return [
        Document(id=document.id, kind=document.kind, split=split or _split_of(unit_hash), text=document.text)
        for unit_hash, document in ordered
    ]


def _unit_hash(seed: int, identifier: str) -> float:
    """Hash of seed and id, uniform from 0 to 1."""
    digest = hashlib.sha256(f"{seed}\n{identifier}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _split_of(unit_hash: float) -> Split:
    if unit_hash < TRAIN_SHARE:
        return "train"
    return "validation" if unit_hash < TRAIN_SHARE + VALIDATION_SHARE else "heldout"
