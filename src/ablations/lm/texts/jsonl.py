"""JSON lines files: one record per line, its text in one field."""

import json
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ablations.core.errors import UserError
from ablations.lm.texts.raw import RawDocument


def jsonl_documents(
    lines: Iterable[bytes],
    name: str,
    text_field: str,
    id_field: str | None = None,
    where: Mapping[str, Collection[str]] | None = None,
) -> Iterator[RawDocument]:
    """One document per record; blank lines are skipped.

    Args:
        lines: Lines of the file.
        name: Name of the file, for ids and errors.
        text_field: Field that holds the text; a dot leads into an object or a list.
        id_field: Field that holds the record's id; None uses the number of the line, from 1.
        where: Values of fields of the records that are taken; None takes all.

    Raises:
        UserError: a line is no JSON object in UTF-8, or lacks a field.
    """
    chosen = where or {}
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
        for field in chosen:
            if field not in record:
                raise UserError(f"{name}: line {number} has no field '{field}'; correct the key 'where'")
        if any(str(record[field]) not in values for field, values in chosen.items()):
            continue
        text = _within(record, text_field)
        if not isinstance(text, str):
            raise UserError(
                f"{name}: line {number} has no text in field '{text_field}' (fields: {sorted(record)});"
                " correct the key 'text'"
            )
        if id_field is not None and id_field not in record:
            raise UserError(f"{name}: line {number} has no field '{id_field}'; correct the key 'id'")
        identifier = f"{name}:{number}" if id_field is None else str(record[id_field])
        yield RawDocument(identifier, "record", text)


def _within(record: Mapping[str, Any], field: str) -> Any:
    """Value of the field of this name, or else at the end of the steps that dots join; None where none is."""
    if field in record:
        return record[field]
    value: Any = record
    for step in field.split("."):
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value
