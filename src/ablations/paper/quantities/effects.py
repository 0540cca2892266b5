"""Effects: what an experiment's result is minus, or over, that of another."""

from collections.abc import Iterator

from ablations.paper.formatting import (
    factor,
    factor_interval,
    nats_interval,
    p_value,
    percent_change,
    percent_change_interval,
    signed_nats,
)
from ablations.paper.quantities.quantity import Measured, Quantity, quantity
from ablations.paper.summary import Row, Summary
from ablations.study.contracts.statistics import Measure

_SPEED = "log(samples[].pairs[].reference / samples[].pairs[].arm), minus the same of versus"

EFFECT = Measured(
    "effect",
    "samples[].nll - samples[].reference_nll, minus the same of versus",
    "nats per token",
    signed_nats,
    nats_interval,
)
RELATIVE_SPEED = Measured("relative_speed", _SPEED, "log ratio", percent_change, percent_change_interval)
CONTRIBUTION = Measured("contribution", _SPEED, "log ratio", factor, factor_interval)
LOSS = Measured("loss", _SPEED, "log ratio", percent_change, percent_change_interval)


def effect_quantities(summary: Summary, row: Row) -> Iterator[Quantity]:
    """Effects of an experiment against what it is compared with, as far as there are results of both."""
    wanted: list[tuple[Measured, str | None, Measure]] = []
    if row.method == "sdtp":
        wanted = [(EFFECT, row.versus, "quality"), (RELATIVE_SPEED, row.versus, "speed")]
    else:
        wanted = [(CONTRIBUTION, row.versus, "speed")]
        if row.id in summary.settings.backward:
            wanted.append((LOSS, summary.settings.full_method, "speed"))
    for item, versus, measure in wanted:
        found = summary.comparison(row.id, versus, measure) if versus else None
        if found is None:
            continue
        others = summary.row(versus).files
        yield quantity(row.id, item, found.estimate, row.files, others)
        adjusted = Measured(f"{item.name}.p", f"{item.field}; paired t test, Holm", "p-value", p_value)
        yield quantity(row.id, adjusted, found.p_adjusted, row.files, others)
