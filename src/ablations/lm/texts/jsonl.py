"""JSON lines files: one record per line, its text in one field."""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator

from ablations.core.errors import UserError
from ablations.lm.texts.raw import RawDocument


def jsonl_documents(
    lines: Iterable[bytes], name: str, text_field: str, id_field: str | None = None
) -> Iterator[RawDocument]:
    """One document per record; blank lines are skipped.

    Args:
        lines: Lines of the file.
        name: Name of the file, for ids and errors.
        text_field: Field that holds the text.
        id_field: Field that holds the record's id; None uses the number of the line, from 1.

    Raises:
        UserError: a line is no JSON object in UTF-8, or lacks a field.
    """
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        try:
            # Bytes are decoded first: given bytes, json would guess UTF-16 from zero bytes, line by line.
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: line {number} is not JSON in UTF-8 ({error}); mend the file") from None
        if not isinstance(record, dict):
            raise UserError(f"{name}: line {number} is not a JSON object; mend the file")
        text = record.get(text_field)
        if not isinstance(text, str):
            raise UserError(
                f"{name}: line {number} has no text in field '{text_field}' (fields: {sorted(record)});"
                " correct the key 'text'"
            )
        if id_field is not None and id_field not in record:
            raise UserError(f"{name}: line {number} has no field '{id_field}'; correct the key 'id'")
        identifier = f"{name}:{number}" if id_field is None else str(record[id_field])
        yield RawDocument(identifier, "record", text)
