"""Effects: what an experiment's result is minus, or over, that of another."""

from collections.abc import Iterator

from ablations.evidence.statistics import Endpoint
from ablations.paper.formatting import (
    factor,
    factor_interval,
    nats,
    nats_interval,
    p_value,
    percent_change,
    percent_change_interval,
    signed_nats,
)
from ablations.paper.quantities.quantity import LOG_SPEEDUP, Measured, Quantity, quantity
from ablations.paper.summary import Row, Summary

_SPEED = f"{LOG_SPEEDUP}, minus the same of versus"

EFFECT = Measured(
    "effect",
    "samples[].nll - samples[].reference_nll, minus the same of versus",
    "nats per token",
    signed_nats,
    nats_interval,
)
RELATIVE_SPEED = Measured("relative_speed", _SPEED, "log ratio", percent_change, percent_change_interval)
CONTRIBUTION = Measured("contribution", _SPEED, "log ratio", factor, factor_interval)
AGAINST = Measured("against", _SPEED, "log ratio", factor, factor_interval)
LOSS = Measured("loss", _SPEED, "log ratio", percent_change, percent_change_interval)

DETECTABLE = "; smallest mean that the paired t test finds with 80 % power"
QUALITY = Measured("quality", EFFECT.field + DETECTABLE, "nats per token", nats)
SPEED = Measured(
    "speed", _SPEED + DETECTABLE, "log ratio", lambda value: factor(value).replace(r"\times", "")
)
WITHOUT_EFFECT = ("similar_spread", "inexact")
"""Reasons of an inconclusive verdict that are about something else than a mean."""


def effect_quantities(summary: Summary, row: Row) -> Iterator[Quantity]:
    """Effects of an experiment against what it is compared with, as far as there are results of both."""
    wanted: list[tuple[Measured, str | None, Endpoint]] = []
    if row.method == "sdtp":
        wanted = [(EFFECT, row.versus, "quality"), (RELATIVE_SPEED, row.versus, "speed")]
    else:
        wanted = [(CONTRIBUTION, row.versus, "speed")]
        if row.id in summary.settings.backward:
            wanted.append((LOSS, summary.settings.full_method, "speed"))
    wanted += [(AGAINST._replace(name=f"against.{other}"), other, "speed") for other in row.ordered_against]
    for item, versus, measure in wanted:
        found = summary.comparison(row.id, versus, measure) if versus else None
        if found is None:
            continue
        others = summary.row(versus).files
        yield quantity(row.id, item, found.estimate, row.files, others)
        adjusted = Measured(f"{item.name}.p", f"{item.field}; paired t test, Holm", "p-value", p_value)
        yield quantity(row.id, adjusted, found.p_adjusted, row.files, others)


def detectable_quantities(summary: Summary, row: Row) -> Iterator[Quantity]:
    """Minimum detectable effects, as they are printed beside what stayed inconclusive."""
    undecided: dict[tuple[str | None, Endpoint], None] = {}
    for part in row.parts:
        if part.verdict == "inconclusive" and part.reason not in WITHOUT_EFFECT:
            undecided[part.against, "quality" if part.aspect == "quality" else "speed"] = None
    for against, measure in undecided:
        found = summary.comparison(row.id, against, measure)
        if found is None or found.mde is None:
            continue
        item = QUALITY if measure == "quality" else SPEED
        named = item._replace(name=f"detectable.{measure}.{against or 'reference'}")
        yield quantity(row.id, named, found.mde, row.files, summary.row(against).files if against else ())
