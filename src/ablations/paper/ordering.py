"""The order of the section: parts of the design first, then the study's own; ids in natural order."""

import re
from typing import Any

from ablations.paper.summary import Row, Summary

PARTS_OF = {
    "sdtp": (
        *("baseline", "pruner", "losses", "target", "ratio", "preserve", "positions", "layers", "parallel"),
        "selection",
    ),
    "dynatree": ("forward", "backward", "neural", "adaptation", "drafter"),
}
"""Sections that have a heading and an opening of their own, in the order of the design."""


def ordered(summary: Summary) -> Summary:
    """The summary with its rows in the order in which the section treats them.

    An overlay's experiments come before those of the study that it extends when configurations are merged,
    so the order in which rows are configured says nothing. Rows of the forward and of the backward ablation
    have the order that the settings give them.
    """
    own = list(dict.fromkeys(row.section for row in summary.rows))
    listed = [*summary.settings.forward, *summary.settings.backward]

    def key(row: Row) -> tuple[Any, ...]:
        known = PARTS_OF[row.method]
        place = known.index(row.section) if row.section in known else len(known) + own.index(row.section)
        rank = listed.index(row.id) if row.id in listed else len(listed)
        return (
            [*PARTS_OF].index(row.method),
            bool(row.change) or row.method != "sdtp",
            place,
            rank,
            _natural(row.id),
        )

    return summary.model_copy(update={"rows": tuple(sorted(summary.rows, key=key))})


def _natural(name: str) -> list[tuple[bool, int | str]]:
    """Key in which numbers inside a name count as numbers."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.findall(r"\d+|\D+", name)]
