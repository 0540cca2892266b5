"""The order of the section: parts of the design first, then the study's own; ids in natural order."""

import re
from collections.abc import Sequence
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
    have the order that the settings give them, and comparators precede what is compared with them.
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

    rows = sorted(summary.rows, key=key)
    return summary.model_copy(update={"rows": tuple(_comparators_first(rows))})


def _comparators_first(rows: Sequence[Row]) -> list[Row]:
    """The same order, but what others of a part are compared with stands before them."""
    by_id = {row.id: row for row in rows}
    placed: dict[str, Row] = {}

    for row in rows:
        chain = [row]
        while (before := by_id.get(chain[-1].versus or "")) is not None and before not in chain:
            if (before.method, before.section) != (row.method, row.section):
                break
            chain.append(before)
        placed |= {item.id: item for item in reversed(chain) if item.id not in placed}
    return list(placed.values())


def _natural(name: str) -> list[tuple[bool, int | str]]:
    """Key in which numbers inside a name count as numbers."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.findall(r"\d+|\D+", name)]
