"""Series that go on to a later look than the configuration plans: `results/extension.json`."""

from collections.abc import Mapping

from pydantic import PositiveInt

from ablations.core.contract import Contract
from ablations.core.files import write_text
from ablations.core.record import read_contract
from ablations.study.planning.stages import RESULTS

EXTENSION = RESULTS / "extension.json"
"""Written by ``python -m ablations.study extend``; without it a study is what its configuration says."""


class Extended(Contract):
    """A series that goes on."""

    planned: PositiveInt
    """Items that the configuration plans; a study that plans another number is not extended."""
    items: PositiveInt
    """Items that are wanted now."""


class Extension(Contract):
    """All series that go on, by digest."""

    series: dict[str, Extended]
    """A series has the same digest whatever the number of its items."""

    def items(self, digest: str, planned: int) -> int:
        """How many items of a series are wanted.

        Args:
            digest: Digest of the series.
            planned: Items that the configuration plans.
        """
        entry = self.series.get(digest)
        return entry.items if entry and entry.planned == planned else planned


def read_extension() -> Extension:
    """What was extended in the working directory.

    Raises:
        UserError: the file is damaged.
    """
    return read_contract(EXTENSION, Extension) if EXTENSION.exists() else Extension(series={})


def write_extension(series: Mapping[str, Extended]) -> None:
    """Add series to those that go on.

    Args:
        series: By digest, from how many items each goes on, and to how many. One that went on before keeps
            the number that the configuration plans.
    """
    known = read_extension().series
    added = {}
    for digest, entry in series.items():
        before = known.get(digest)
        goes_on = before is not None and before.items == entry.planned
        added[digest] = Extended(planned=before.planned, items=entry.items) if before and goes_on else entry
    write_text(EXTENSION, Extension(series={**known, **added}).model_dump_json(indent=1) + "\n")
