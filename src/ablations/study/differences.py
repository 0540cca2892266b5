"""Differences of nested values, for people."""

import json
from collections.abc import Iterator
from typing import Any


def leaf_changes(key: str, old: Any, new: Any) -> Iterator[str]:
    """Changed leaves of nested maps as ``key old -> new``."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{key} {_short(old)} -> {_short(new)}"
        return
    for name in [*new, *(name for name in old if name not in new)]:
        yield from leaf_changes(f"{key}.{name}" if key else str(name), old.get(name), new.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
