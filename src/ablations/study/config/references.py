"""Names in a configuration that refer to another of its sections."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ablations.core.contract import Contract
from ablations.study.config.problems import check_known


@dataclass(frozen=True)
class Refers:
    """Marks a field of a contract, in `Annotated`, whose names are keys of another section.

    Attributes:
        section: The section, as a key of the configuration.
        kind: Kind that its entries must have; None takes all.
    """

    section: str
    kind: str | None = None

    def check(self, key: str, names: list[str], config: Contract) -> None:
        """Check that the names at `key` are there.

        Raises:
            UserError: one is not, with the nearest that is.
        """
        entries = attrgetter(self.section)(config)
        if self.kind is None:
            check_known(key, names, entries, self.section)
            return
        fitting = [name for name, entry in entries.items() if entry.kind == self.kind]
        check_known(key, names, fitting, f"{self.section} of kind '{self.kind}'")


def check_names(config: Contract) -> None:
    """Check every field that is marked by `Refers`.

    Raises:
        UserError: a name that its section has not.
    """
    for key, names, marker in _references(config, ""):
        marker.check(key, names, config)


def _references(value: Any, key: str) -> Iterator[tuple[str, list[str], Refers]]:
    if isinstance(value, Mapping):
        inner = value
    elif isinstance(value, Contract):
        inner = {name: getattr(value, name) for name in type(value).model_fields}
        for name, field in type(value).model_fields.items():
            for marker in field.metadata:
                if isinstance(marker, Refers):
                    yield f"{key}{name}", _names(inner[name]), marker
    else:
        return
    for name, each in inner.items():
        yield from _references(each, f"{key}{name}.")


def _names(value: str | tuple[str, ...] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [*value]
