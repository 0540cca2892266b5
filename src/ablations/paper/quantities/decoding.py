"""Numbers of the decoding experiments and of grids."""

from collections.abc import Iterator

from ablations.paper.formatting import average, count, factor, factor_interval, percent, rate, seconds
from ablations.paper.quantities.quantity import LOG_SPEEDUP, Measured, Quantity, quantities, quantity
from ablations.paper.results.decoding import DecodingMeasures
from ablations.paper.results.files import RecordFile
from ablations.paper.summary import Row, Summary

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
    Measured("tokens_per_forward", "1 + samples[].accepted / samples[].target_forwards", "tokens", average),
    Measured(
        "forwards_per_token", "samples[].target_forwards / (samples[].new_tokens - 1)", "forwards", average
    ),
    Measured("matched", "samples[].matched", "prompts", count),
    Measured("repeated_4grams", "samples[].repeated_4grams", "share", percent),
)

_PHASES = "the sum of samples[].draft_seconds, .verify_seconds and .bookkeeping_seconds"
DRAFTING = (
    Measured("speedup", LOG_SPEEDUP, "log ratio", factor, factor_interval),
    Measured("draft_share", f"samples[].draft_seconds / {_PHASES}", "share", percent),
    Measured("verify_share", f"samples[].verify_seconds / {_PHASES}", "share", percent),
    Measured("bookkeeping_share", f"samples[].bookkeeping_seconds / {_PHASES}", "share", percent),
    Measured("nodes_per_round", "samples[].drafted / samples[].target_forwards", "nodes", average),
    Measured("accepted_per_node", "samples[].accepted / samples[].drafted", "share", percent),
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
    for prefix, measures in both:
        yield from quantities(prefix, MEASURES, measures, row.files)
        if not result.autoregressive:
            yield from quantities(prefix, DRAFTING, measures, row.files)
            yield from _depths(prefix, measures, row.files)
    if result.library_speedup is not None:
        yield quantity(row.id, LIBRARY, result.library_speedup, row.files)


def _depths(prefix: str, measures: DecodingMeasures, files: tuple[RecordFile, ...]) -> Iterator[Quantity]:
    for place, counts in enumerate(measures.depths):
        field = f"samples[].accepted_per_depth[{place}] / samples[].tested_per_depth[{place}]"
        item = Measured("acceptance", field, "share", average)
        yield quantity(f"{prefix}.depth{place + 1}", item, counts.accepted / counts.tested, files)


def grid_quantities(summary: Summary) -> Iterator[Quantity]:
    """Numbers of replayed drafts: grid, method, depth, branching, threshold, length and kind of prompts."""
    for grid, points in (("trees", summary.tree_grid), ("lengths", summary.length_grid)):
        for point in points:
            tau = "none" if point.tau is None else f"{point.tau:g}"
            shape = f"{point.shape.method}.{point.shape.depth}.{point.shape.branching}"
            prefix = f"{grid}.{shape}.{tau}.{point.tokens}.{point.kind or 'all'}"
            yield from quantities(prefix, GRID, point, [point.file])
