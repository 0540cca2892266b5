"""Published numbers beside measured ones: read from their one file, printed, and used for nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ablations.core.contract import Contract
from ablations.core.errors import UserError, one_line
from ablations.paper.numbers import all_quantities
from ablations.paper.quantities.quantity import Quantity
from ablations.paper.summary import Summary
from ablations.study.config.reading import read_yaml

FILE = "published.yaml"


class Source(Contract):
    """Where numbers were published."""

    title: str
    """What the table calls it."""
    cite: str | None = None
    """Key in `paper/references.bib`; null for what has none."""


class PublishedValue(Contract):
    """One published number."""

    what: str
    """What it is."""
    value: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]
    """The number, with the decimals that were published."""
    unit: Literal["s", "times", "tokens/s", "points", "TFLOP", "GB"]
    """Its unit."""
    number: str | None = None
    """Name of the measured number in its place; null where nothing here measures the same."""


class Group(Contract):
    """Numbers of one table of a publication."""

    title: str
    """What they are about."""
    source: str
    """Key of their source."""
    place: str | None = None
    """Where they stand in it."""
    studies: tuple[str, ...] = ()
    """Studies that have the same setting here, the one of that setting alone first."""
    model: str | None = None
    """Name of that setting's model on the hub."""
    values: tuple[PublishedValue, ...]
    """The numbers."""


class Published(Contract):
    """All published numbers, the content of `published.yaml`."""

    sources: dict[str, Source]
    """Publications by key."""
    groups: tuple[Group, ...]
    """Numbers, by table of a publication."""

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        for group in self.groups:
            if group.source not in self.sources:
                raise ValueError(f"'{group.title}': source '{group.source}' is not in 'sources'")
            if not (group.studies and group.model) and any(row.number for row in group.values):
                raise ValueError(f"'{group.title}': a measured number needs the keys 'studies' and 'model'")
        return self


def read_published(templates: Path) -> Published:
    """Read the published numbers.

    Raises:
        UserError: the file is missing, or breaks its contract.
    """
    path = templates / FILE
    try:
        return Published.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def belongs(group: Group, summary: Summary) -> bool:
    """Whether a study has the published setting: its name and the very model, not a stand-in."""
    return summary.study in group.studies and group.model in summary.sources.values()


def beside(
    published: Published, summary: Summary
) -> Iterator[tuple[Group, list[tuple[PublishedValue, Quantity | None]]]]:
    """Each group of published numbers with what this study measured in their place."""
    measured = {item.name: item for item in all_quantities(summary)}
    for group in published.groups:
        here = measured if belongs(group, summary) else {}
        yield group, [(row, here.get(row.number or "")) for row in group.values]
