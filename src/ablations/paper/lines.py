"""Experiments that figures draw as lines or points, and how many of them a panel has room for."""

from ablations.paper.summary import Row, Summary

MOST_LINES = 6
"""Lines of one panel; more could not be told apart."""


def keep_ratio_rows(summary: Summary) -> list[Row]:
    """The baseline and the experiments that change the keep ratio alone, by falling keep ratio."""
    rows = [
        row
        for row in summary.rows
        if row.sdtp is not None
        and row.sdtp.speedup is not None
        and (
            not row.change
            or (set(row.change) == {"schedule"} and set(row.change["schedule"]) == {"keep_ratio"})
        )
    ]
    return sorted(rows, key=lambda row: -row.sdtp.keep_ratios[0])


def layer_rows(summary: Summary) -> list[Row]:
    """The baseline, and what prunes at other layers without ranks."""
    return [
        row
        for row in summary.rows
        if row.sdtp is not None and (not row.change or (row.section == "layers" and "schedule" in row.change))
    ]
