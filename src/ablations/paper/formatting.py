"""The one place that turns numbers into LaTeX: decimals, units and signs.

Every function returns LaTeX. Speed comes in as a log ratio and goes out as a factor or as a percentage.
"""

import math
from collections.abc import Callable

from ablations.evidence.statistics import Estimate

NATS_DECIMALS = 3
FACTOR_DECIMALS = 2
PERCENT_DECIMALS = 1
SIGNIFICANT_DIGITS = 3

LARGEST_FACTOR = 1000.0
"""Beyond it a factor is only said to be larger: two noisy documents tell no more."""

FEWEST_ROUNDS = 10
"""A share of fewer rounds is in no figure: it would be noise."""

ABSENT = "---"
"""What a cell without a value shows."""


def nats(value: float) -> str:
    """A magnitude of NLL, nats per token."""
    return f"${_fixed(value, NATS_DECIMALS)}$"


def signed_nats(value: float) -> str:
    """A difference of NLL, nats per token."""
    return f"${_fixed(value, NATS_DECIMALS, '+')}$"


def nats_interval(estimate: Estimate) -> str:
    """Interval of a difference of NLL."""
    return _interval(estimate, lambda value: _fixed(value, NATS_DECIMALS))


def factor(log_ratio: float) -> str:
    """A speed-up or a ratio of speed-ups."""
    return rf"${_ratio(log_ratio, _as_factor)}\times$"


def factor_interval(estimate: Estimate) -> str:
    """Interval of a speed-up or of a ratio of speed-ups."""
    return _interval(estimate, lambda value: _ratio(value, _as_factor))


def bare_factor(ratio: float) -> str:
    """A factor that is given as such."""
    return f"${ratio:g}$"


def percent_change(log_ratio: float) -> str:
    """A ratio of speed-ups as a change of speed in per cent."""
    return rf"${_ratio(log_ratio, _as_change)}\%$"


def percent_difference(log_ratio: float) -> str:
    """A ratio of two times of the same as a difference in per cent."""
    return percent(math.expm1(log_ratio))


def percent_change_interval(estimate: Estimate) -> str:
    """Interval of a change of speed in per cent."""
    return _interval(estimate, lambda value: _ratio(value, _as_change))


def percent(share: float, decimals: int = PERCENT_DECIMALS) -> str:
    """A share in per cent."""
    return rf"${_fixed(100 * share, decimals)}\%$"


def whole_percent(share: float) -> str:
    """A share that is a round number of per cent (a level, a power)."""
    return rf"${100 * share:g}\%$"


def rate(tokens_per_second: float) -> str:
    """Throughput, tokens per second."""
    return f"${_fixed(tokens_per_second, 1)}$"


def millions(number: float) -> str:
    """A large count in millions."""
    return f"${_significant(number / 1e6)}$"


def seconds(value: float) -> str:
    """A duration, with three significant digits."""
    return rf"${_significant(value)}$\,s"


def average(value: float) -> str:
    """A mean count (tokens per forward, nodes per round)."""
    return f"${_fixed(value, 2)}$"


def signed_average(value: float) -> str:
    """A difference of rank correlations."""
    return f"${_fixed(value, 2, '+')}$"


def average_interval(estimate: Estimate) -> str:
    """Interval of a rank correlation, or of a difference of such."""
    return _interval(estimate, lambda value: _fixed(value, 2))


def percent_interval(estimate: Estimate) -> str:
    """Interval of a share, in per cent."""
    return _interval(estimate, lambda value: _fixed(100 * value, PERCENT_DECIMALS))


def ratio_percent(log_ratio: float) -> str:
    """A ratio as per cent of what it is a ratio to."""
    return rf"${_ratio(log_ratio, _as_percent)}\%$"


def ratio_percent_interval(estimate: Estimate) -> str:
    """Interval of a ratio in per cent."""
    return _interval(estimate, lambda value: _ratio(value, _as_percent))


def count(value: float) -> str:
    """A mean number of tokens, to the whole one."""
    return f"${value:.0f}$"


def size(number: float) -> str:
    """Bytes, in the largest binary unit that leaves at least one."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(number, 1024)), len(units) - 1) if number >= 1 else 0
    return rf"${_significant(number / 1024**power)}$\,{units[power]}"


def operations(flops: float) -> str:
    """Floating-point operations, in thousand millions."""
    return rf"${_significant(flops / 1e9)}$\,G"


def p_value(p: float) -> str:
    """A p-value with its relation sign."""
    return "$p<0.001$" if p < 0.001 else f"$p={_fixed(p, 3)}$"


def _ratio(log_ratio: float, form: Callable[[float], str]) -> str:
    if log_ratio > math.log(LARGEST_FACTOR):
        return "{>}" + form(LARGEST_FACTOR)
    return form(math.exp(log_ratio))


def _as_factor(ratio: float) -> str:
    return _fixed(ratio, FACTOR_DECIMALS)


def _as_change(ratio: float) -> str:
    return _fixed(100 * (ratio - 1), PERCENT_DECIMALS, "+")


def _as_percent(ratio: float) -> str:
    return _fixed(100 * ratio, PERCENT_DECIMALS)


def _fixed(number: float, decimals: int, sign: str = "") -> str:
    """Fixed decimals; what rounds to zero has no sign."""
    text = f"{number:{sign}.{decimals}f}"
    return f"{0:.{decimals}f}" if float(text) == 0 else text


def _significant(number: float) -> str:
    """`SIGNIFICANT_DIGITS`, never in exponent notation."""
    if number <= 0:
        return "0"
    decimals = max(0, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(number)))
    return f"{number:.{decimals}f}"


def _interval(estimate: Estimate, form: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return rf"$[{form(estimate.low)},\,{form(estimate.high)}]$"
