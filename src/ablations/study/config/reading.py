"""What YAML lets pass and a study does not."""

from pathlib import Path

import yaml

from ablations.study.errors import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def require_distinct_keys(path: Path) -> None:
    """Check that no map of a YAML file has a key twice: of two experiments of one id, one would be lost.

    Raises:
        UserError: one has, or the file is not YAML in UTF-8.
    """
    levels: list[_Level] = []
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=_LOADER):
            if isinstance(event, yaml.CollectionEndEvent):
                levels.pop()
            elif isinstance(event, yaml.NodeEvent):
                if levels:
                    levels[-1].take(path, event)
                if isinstance(event, yaml.CollectionStartEvent):
                    levels.append(_Level(isinstance(event, yaml.MappingStartEvent)))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None


class _Level:
    """A map or list that has begun and not ended: events are read as they come, no document is built."""

    def __init__(self, is_map: bool) -> None:
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
