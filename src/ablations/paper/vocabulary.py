"""What templates may say: filters that print values, marks and constants."""

from collections.abc import Callable
from typing import Any

from ablations.evidence.expectations import Expectation
from ablations.evidence.statistics import POWER, T_BELOW, Comparison
from ablations.paper import formatting, wording

_LEVELS = {
    "same": r"$\approx$",
    "up": r"$\uparrow$",
    "up_strong": r"$\uparrow\uparrow$",
    "down": r"$\downarrow$",
    "down_strong": r"$\downarrow\downarrow$",
    "unstable": "unstable",
    "crash": "crash",
}


def mark(comparison: Comparison, alpha: float) -> str:
    """A star where the adjusted p-value passes the level."""
    return r"\rlap{$^{*}$}" if comparison.p_adjusted <= alpha else ""


def expected(expect: Expectation) -> str:
    """What was predicted, in symbols: Q for quality, S for speed, B for bytes sent."""
    parts = [
        f"{name}~{_LEVELS[level]}"
        for name, level in (("Q", expect.quality), ("S", expect.speed))
        if level is not None
    ]
    orderings = (("$>$", expect.above), ("$<$", expect.below), (_LEVELS["same"], expect.about))
    parts += [f"S~{sign}~{wording.tex(other)}" for sign, others in orderings for other in others]
    parts += [f"B~$<$~{wording.tex(other)}" for other in expect.less_traffic]
    return ", ".join(parts) if parts else formatting.ABSENT


FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        expected,
        formatting.average,
        formatting.average_interval,
        formatting.bare_factor,
        formatting.count,
        formatting.factor,
        formatting.factor_interval,
        formatting.millions,
        formatting.nats,
        formatting.nats_interval,
        formatting.operations,
        formatting.p_value,
        formatting.percent,
        formatting.percent_change,
        formatting.percent_change_interval,
        formatting.percent_difference,
        formatting.percent_interval,
        formatting.rate,
        formatting.ratio_percent,
        formatting.ratio_percent_interval,
        formatting.seconds,
        formatting.signed_average,
        formatting.signed_nats,
        formatting.size,
        formatting.touches,
        formatting.whole_percent,
        wording.code,
        wording.listing,
        wording.per_stage,
        wording.settings,
        wording.step,
        wording.tex,
        wording.value,
        wording.words,
    )
}
"""What templates may use to print a value."""

CONSTANTS: dict[str, Any] = {
    "ABSENT": formatting.ABSENT,
    "FEWEST_ROUNDS": formatting.FEWEST_ROUNDS,
    "POWER": POWER,
    "T_BELOW": T_BELOW,
    "mark": mark,
}
"""What else templates may use."""
