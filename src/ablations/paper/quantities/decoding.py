"""Numbers of the decoding experiments and of grids."""

from collections.abc import Iterable, Iterator

from ablations.paper.formatting import (
    average,
    count,
    factor,
    factor_interval,
    percent,
    percent_change,
    percent_change_interval,
    rate,
    seconds,
)
from ablations.paper.quantities.quantity import LOG_SPEEDUP, Measured, Quantity, quantities, quantity
from ablations.paper.results.decoding import DecodingMeasures
from ablations.paper.results.files import RecordFile
from ablations.paper.summary import Row, Summary

COUNTS = "COUNTED"
"""Stands for the samples that are counted: those that were replayed, or else those that were timed."""

LOG_ROUNDS = (
    "log((samples[].pairs[].reference - samples[].pairs[].reference_first)"
    " / (samples[].pairs[].arm - samples[].pairs[].arm_first)), median over pairs"
)

PRICES = (
    "log((totals.replays[].reference_first + totals.replays[].reference_rounds)"
    " / (totals.replays[].first + totals.replays[].rounds))"
)

CORRECTED = {
    "speedup": PRICES,
    "rounds_speedup": "log(totals.replays[].reference_rounds / totals.replays[].rounds)",
}
"""Prices that speed-ups are computed from, too, where prompts were replayed."""

MEASURES = (
    Measured(
        "throughput",
        "samples[].new_tokens / samples[].pairs[].arm, median over pairs",
        "tokens per second",
        rate,
    ),
    Measured("first_seconds", "samples[].pairs[].arm_first, median over pairs", "seconds", seconds),
    Measured(
        "token_seconds",
        "(samples[].pairs[].arm - samples[].pairs[].arm_first) / (samples[].new_tokens - 1),"
        " medians over pairs",
        "seconds",
        seconds,
    ),
    Measured("tokens_per_forward", f"1 + {COUNTS}.accepted / {COUNTS}.target_forwards", "tokens", average),
    Measured(
        "forwards_per_token", f"{COUNTS}.target_forwards / ({COUNTS}.new_tokens - 1)", "forwards", average
    ),
    Measured("matched", "samples[].matched", "prompts", count),
    Measured("repeated_4grams", f"{COUNTS}.repeated_4grams", "share", percent),
)

_PHASES = "the sum of samples[].draft_seconds, .verify_seconds and .bookkeeping_seconds"
DRAFTING = (
    Measured("speedup", LOG_SPEEDUP, "log ratio", factor, factor_interval),
    Measured("measured_speedup", LOG_SPEEDUP, "log ratio", factor, factor_interval),
    Measured("rounds_speedup", LOG_ROUNDS, "log ratio", factor, factor_interval),
    Measured(
        "price_error",
        f"{PRICES} of the timed prompts, minus {LOG_SPEEDUP}",
        "log ratio",
        percent_change,
        percent_change_interval,
    ),
    Measured("draft_share", f"samples[].draft_seconds / {_PHASES}", "share", percent),
    Measured("verify_share", f"samples[].verify_seconds / {_PHASES}", "share", percent),
    Measured("bookkeeping_share", f"samples[].bookkeeping_seconds / {_PHASES}", "share", percent),
    Measured("nodes_per_round", f"{COUNTS}.drafted / {COUNTS}.target_forwards", "nodes", average),
    Measured("accepted_per_node", f"{COUNTS}.accepted / {COUNTS}.drafted", "share", percent),
)

LIBRARY = Measured("library_speedup", LOG_SPEEDUP, "log ratio", factor, factor_interval)

GRID = (
    Measured(
        "speedup",
        "log(points[].samples[].reference_seconds / points[].samples[].seconds)",
        "log ratio of prices",
        factor,
        factor_interval,
    ),
    Measured(
        "tokens_per_forward", "1 + points[].samples[].accepted / points[].samples[].rounds", "tokens", average
    ),
    Measured("nodes_per_round", "points[].samples[].drafted / points[].samples[].rounds", "nodes", average),
    Measured("new_tokens", "points[].samples[].new_tokens", "tokens", count),
    Measured("repeated_4grams", "points[].samples[].repeated_4grams", "share", percent),
)


def decoding_quantities(row: Row) -> Iterator[Quantity]:
    """Numbers of a decoding configuration that ran: over all prompts, then by kind (`F4.code.speedup`)."""
    result = row.decoding
    assert result is not None
    kinds = ((f"{row.id}.{kind.kind}", kind) for kind in result.kinds)
    both: list[tuple[str, DecodingMeasures]] = [(row.id, result), *kinds]
    replayed = result.replayed is not None
    for prefix, measures in both:
        yield from quantities(prefix, _of(MEASURES, replayed), measures, row.files)
        if not result.autoregressive:
            yield from quantities(prefix, _of(DRAFTING, replayed), measures, row.files)
            yield from _depths(prefix, measures, row.files, replayed)
    if result.library_speedup is not None:
        yield quantity(row.id, LIBRARY, result.library_speedup, row.files)


def _of(measured: Iterable[Measured], replayed: bool) -> list[Measured]:
    """Quantities with the fields that they are computed from: those of replays where there are any."""
    found = []
    for item in measured:
        field = item.field.replace(COUNTS, "totals.replays[]" if replayed else "samples[]")
        if replayed and item.name in CORRECTED:
            field = f"{field}; corrects {CORRECTED[item.name]}"
        found.append(item._replace(field=field))
    return found


def _depths(
    prefix: str, measures: DecodingMeasures, files: tuple[RecordFile, ...], replayed: bool
) -> Iterator[Quantity]:
    for place, counts in enumerate(measures.depths):
        field = f"{COUNTS}.accepted_per_depth[{place}] / {COUNTS}.tested_per_depth[{place}]"
        item = Measured("acceptance", field, "share", average)
        (item,) = _of([item], replayed)
        yield quantity(f"{prefix}.depth{place + 1}", item, counts.accepted / counts.tested, files)


def grid_quantities(summary: Summary) -> Iterator[Quantity]:
    """Numbers of replayed drafts: grid, method, depth, branching, threshold, length and kind of prompts."""
    for grid, points in (("trees", summary.tree_grid), ("lengths", summary.length_grid)):
        for point in points:
            tau = "none" if point.tau is None else f"{point.tau:g}"
            shape = f"{point.shape.method}.{point.shape.depth}.{point.shape.branching}"
            prefix = f"{grid}.{shape}.{tau}.{point.tokens}.{point.kind or 'all'}"
            yield from quantities(prefix, GRID, point, [point.file])
