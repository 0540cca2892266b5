"""What YAML lets pass and a study does not."""

from pathlib import Path
from typing import Any

import yaml

from ablations.core.errors import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 50
_MOST = 1_000_000
"""Levels and nodes of a file, what aliases stand for counted wherever they stand."""


def read_yaml(path: Path) -> Any:
    """What a YAML file of one document says.

    Raises:
        UserError: the file is not such YAML in UTF-8, has a key twice or a value that means nothing, or its
            anchors grow beyond measure.
        OSError: it cannot be read.
    """
    require_distinct_keys(path)
    try:
        # PyYAML passes on what it trips over: an impossible date, say, or a number of 5,000 digits.
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: a value means nothing to YAML ({error}); quote or correct it") from None


def require_distinct_keys(path: Path) -> None:
    """Check that no map of a YAML file has a key twice: of two experiments of one id, one would be lost.

    Raises:
        UserError: one has, the file is not YAML of one document in UTF-8, it is nested too deeply, or its
            anchors contain themselves or grow beyond measure.
    """
    levels = [_Level(False)]
    sizes: dict[str, int] = {}
    documents = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                done = levels.pop()
                levels[-1].size += done.size
                sizes[done.anchor] = done.size
            elif isinstance(event, yaml.NodeEvent):
                levels[-1].take(path, event)
                if isinstance(event, yaml.AliasEvent):
                    if event.anchor in [level.anchor for level in levels]:
                        raise UserError(f"{path}: the anchor '{event.anchor}' contains itself; write it out")
                    levels[-1].size += sizes.get(event.anchor or "", 1)
                elif isinstance(event, yaml.CollectionStartEvent):
                    levels.append(_Level(isinstance(event, yaml.MappingStartEvent), event.anchor or ""))
                else:
                    levels[-1].size += 1
                    sizes.pop(event.anchor or "", None)
            if documents > 1:
                raise UserError(f"{path}: holds several documents (---); a study is one")
            if len(levels) > _DEEPEST or sum(level.size for level in levels) > _MOST:
                raise UserError(
                    f"{path}: nested too deeply, or too large once its aliases are followed; shorten it"
                )
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None


class _Level:
    """A map or list that has begun and not ended: events are read as they come, no document is built."""

    def __init__(self, is_map: bool, anchor: str = "") -> None:
        self.anchor = anchor
        self.size = 1
        self._keys: set[str] = set()
        self._is_map = self._key_comes = is_map

    def take(self, path: Path, event: yaml.NodeEvent) -> None:
        """Take a key, value or element of it."""
        if self._key_comes and isinstance(event, yaml.ScalarEvent):
            if event.value in self._keys:
                raise UserError(
                    f"{path}: line {event.start_mark.line + 1}: the key '{event.value}' is there twice, and"
                    " the first one would be lost; rename or remove one"
                )
            self._keys.add(event.value)
        self._key_comes = self._is_map and not self._key_comes
