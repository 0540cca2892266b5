"""What figures have in common."""

from collections.abc import Callable, Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ablations.evidence.statistics import Estimate
from ablations.paper import style

_ROUND = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_BETWEEN = (0.3, 0.7, 1.5, 3, 7)
# A range of this factor or more has round ones enough.
_SHORT = 8


def bars(estimate: Estimate, scale: Callable[[float], float]) -> list[list[float]] | None:
    """Lengths of the two error bars, as matplotlib takes them; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    middle = scale(estimate.value)
    return [[middle - scale(estimate.low)], [scale(estimate.high) - middle]]


def factor_ticks(axes: Axes, which: str, factors: Iterable[float]) -> None:
    """Logarithmic axis (`x` or `y`) with round factors that lie in the range of the data, 1 among them."""
    factors = list(factors)
    low, high = min([1.0, *factors]) / 1.25, max([1.0, *factors]) * 1.25
    getattr(axes, f"set_{which}scale")("log")
    ticks = [factor for factor in _ROUND if low <= factor <= high]
    if high < _SHORT * low:
        ticks = sorted([*ticks, *(factor for factor in _BETWEEN if low <= factor <= high)])
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def say_missing(axes: Axes) -> None:
    """Say that there is nothing to show."""
    axes.text(0.5, 0.5, "no record yet", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
