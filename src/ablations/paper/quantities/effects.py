"""Effects: what an experiment's result is minus, or over, that of another, and how predictions were read."""

from collections.abc import Iterator

from ablations.evidence.decisions import ENDPOINTS, Decision
from ablations.evidence.statistics import Comparison, Endpoint, Estimate
from ablations.paper.formatting import (
    factor,
    factor_interval,
    nats_interval,
    p_value,
    percent_change,
    percent_change_interval,
    signed_nats,
)
from ablations.paper.quantities.decoding import PRICES
from ablations.paper.quantities.quantity import LOG_SPEEDUP, Measured, Quantity, quantity
from ablations.paper.summary import Row, Summary

_MINUS = ", minus the same of versus"
_SPEED = f"{LOG_SPEEDUP}{_MINUS}"
_NATS = ("nats per token", signed_nats, nats_interval)

TEXT_EFFECT = Measured("text_effect", f"samples[].kl{_MINUS}", *_NATS)
RETRIEVAL_EFFECT = Measured("retrieval_effect", f"totals.retrieval[].nll{_MINUS}", *_NATS)
NLL_EFFECT = Measured("effect", f"samples[].nll - samples[].reference_nll{_MINUS}", *_NATS)
RELATIVE_SPEED = Measured("relative_speed", _SPEED, "log ratio", percent_change, percent_change_interval)
COUNTED_SPEED = Measured(
    "counted_speed", "log(totals.prefill_flops of versus / totals.prefill_flops)", "log ratio", percent_change
)
CONTRIBUTION = Measured("contribution", _SPEED, "log ratio", factor, factor_interval)
AGAINST = Measured("against", _SPEED, "log ratio", factor, factor_interval)
LOSS = Measured("loss", _SPEED, "log ratio", percent_change, percent_change_interval)


def effect_quantities(summary: Summary, row: Row) -> Iterator[Quantity]:
    """Effects of an experiment against what it is compared with, as far as there are results of both."""
    for plain, versus, measure in _wanted(summary, row):
        item = _with_prices(summary, row, versus, plain)
        found = summary.comparison(row.id, versus, measure)
        if found is not None and versus is not None:
            yield quantity(row.id, item, found.estimate, row.files, summary.row(versus).files)
            if (given := these_trainings(found)) is not None:
                name = item._replace(name=f"{item.name}.these_trainings")
                yield quantity(row.id, name, given, row.files, summary.row(versus).files)
    others = () if row.versus is None else summary.row(row.versus).files
    if row.nll_effect is not None:
        yield quantity(row.id, NLL_EFFECT, row.nll_effect, row.files, others)
    if (counted := summary.counted_speed(row)) is not None:
        yield quantity(row.id, COUNTED_SPEED, counted, row.files, others)


def these_trainings(comparison: Comparison) -> Estimate | None:
    """The effect with its interval over documents alone; None where no or one training seed plays a part."""
    if comparison.these_trainings is None:
        return None
    low, high = comparison.these_trainings
    return comparison.estimate.model_copy(update={"low": low, "high": high})


def decision_quantities(summary: Summary, row: Row) -> Iterator[Quantity]:
    """How confirmatory predictions were read: effect and interval at the level of the reading, and p."""
    for part in row.parts:
        yield from _reading(summary, row, part)


def effects_of(
    summary: Summary, row: Row, part: Decision
) -> tuple[Quantity | None, Quantity | None, Quantity | None]:
    """The effect that a prediction is about, the effect as it was read, and the p-value of the reading."""
    reading, p = (*_reading(summary, row, part), None, None)[:2]
    if part.aspect not in ENDPOINTS:
        return None, reading, p
    if part.kind == "counted":
        others = summary.row(part.against).files if part.against else ()
        counted = (
            None if part.effect is None else quantity(row.id, COUNTED_SPEED, part.effect, row.files, others)
        )
        return counted, reading, p
    speed = "relative_speed" if row.method == "sdtp" else "contribution"
    usual = {"text": "text_effect", "retrieval": "retrieval_effect"}
    name = usual.get(part.aspect, speed if part.against == row.versus else f"against.{part.against}")
    found = {item.measure: item for item in effect_quantities(summary, row)}
    return found.get(name), reading, p


def _reading(summary: Summary, row: Row, part: Decision) -> Iterator[Quantity]:
    """Named by prediction: `A5.decided.text`, `F4.decided.above.F2`, and `.p` behind it."""
    if part.effect is None or part.p_adjusted is None or part.kind != "confirmatory":
        return
    usual = {"text": TEXT_EFFECT, "retrieval": RETRIEVAL_EFFECT, "speed": RELATIVE_SPEED}
    item, name = usual.get(part.aspect, AGAINST), f"decided.{part.aspect}"
    if part.aspect not in usual:
        name = f"{name}.{part.against}"
    elif row.method == "dynatree":
        item = CONTRIBUTION
    item = _with_prices(summary, row, part.against, item)
    given = Estimate(value=part.effect, low=part.low, high=part.high, n=0, sd=None)
    others = summary.row(part.against).files if part.against else ()
    # Of how many documents it is, the look says.
    yield quantity(row.id, item._replace(name=name), given, row.files, others).model_copy(update={"n": None})
    adjusted = Measured(f"{name}.p", f"{item.field}; largest p-value over cuts, Holm", "p-value", p_value)
    yield quantity(row.id, adjusted, part.p_adjusted, row.files, others)


def _with_prices(summary: Summary, row: Row, versus: str | None, item: Measured) -> Measured:
    """A difference of speed with the prices that it is computed from, too, where prompts were replayed."""
    results = (side.decoding for side in (row, summary.row(versus)) if side is not None)
    if item.field != _SPEED or not any(result is not None and result.replayed for result in results):
        return item
    return item._replace(field=f"{_SPEED}; corrects {PRICES}{_MINUS}")


def _wanted(summary: Summary, row: Row) -> Iterator[tuple[Measured, str | None, Endpoint]]:
    if row.method == "sdtp":
        yield TEXT_EFFECT, row.versus, "text"
        yield RETRIEVAL_EFFECT, row.versus, "retrieval"
        yield RELATIVE_SPEED, row.versus, "speed"
    else:
        yield CONTRIBUTION, row.versus, "speed"
        if row.id in summary.settings.backward:
            yield LOSS, summary.settings.full_method, "speed"
    for other in row.ordered_against:
        yield AGAINST._replace(name=f"against.{other}"), other, "speed"
