"""One number of the paper, and how families of them are made from results."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import NonNegativeInt

from ablations.core.contract import Contract
from ablations.evidence.statistics import Estimate
from ablations.paper.results.files import RecordFile

LOG_SPEEDUP = "log(samples[].pairs[].reference / samples[].pairs[].arm), median over pairs"
"""How the log speed-up of a document is computed from the fields of a record."""


class Quantity(Contract):
    """A measured number under the name by which an author cites it."""

    name: str
    """Experiment and quantity, joined by a full stop (`A7.effect`)."""
    measure: str
    """Quantity without the experiment; says how it is computed from `field`."""
    field: str
    """Fields of the record that it is computed from, and how."""
    unit: str
    """Unit of `value`."""
    value: float
    """The number itself; ratios of speed are logarithms of ratios."""
    low: float | None = None
    """Lower end of its interval; null where it has none."""
    high: float | None = None
    """Upper end of its interval."""
    n: NonNegativeInt | None = None
    """Documents, prompts, windows or rounds that its interval is over."""
    text: str
    """The number as the paper prints it, LaTeX."""
    interval: str | None = None
    """The interval as the paper prints it, LaTeX; null where it has none."""
    files: tuple[RecordFile, ...]
    """Records that it is computed from."""
    versus: tuple[RecordFile, ...] = ()
    """Records of the experiment that it is compared with."""


class Measured(NamedTuple):
    """How one attribute of a result becomes a quantity."""

    name: str
    """Its name, after the experiment's."""
    field: str
    """Fields of the record that it is computed from, and how."""
    unit: str
    """Unit of the value."""
    form: Callable[[float], str]
    """Prints the value."""
    interval: Callable[[Estimate], str] | None = None
    """Prints the interval; None where the paper prints none."""
    attribute: str | None = None
    """Attribute of the result; None where it has the quantity's own name."""


def quantity(
    prefix: str,
    measured: Measured,
    given: Estimate | float,
    files: Sequence[RecordFile],
    versus: Sequence[RecordFile] = (),
) -> Quantity:
    """A quantity called `prefix` and its own name."""
    found = given if isinstance(given, Estimate) else None
    value = given.value if isinstance(given, Estimate) else float(given)
    interval = measured.interval
    shown = found if interval else None
    return Quantity(
        name=f"{prefix}.{measured.name}",
        measure=measured.name,
        field=measured.field,
        unit=measured.unit,
        value=value,
        low=shown.low if shown else None,
        high=shown.high if shown else None,
        n=found.n if found else None,
        text=measured.form(value),
        interval=interval(shown) if interval and shown and shown.low is not None else None,
        files=tuple(files),
        versus=tuple(versus),
    )


def quantities(
    prefix: str, measured: Sequence[Measured], result: Any, files: Sequence[RecordFile]
) -> Iterator[Quantity]:
    """Those of `measured` that `result` has, by attribute."""
    for item in measured:
        given = getattr(result, item.attribute or item.name)
        if given is not None:
            yield quantity(prefix, item, given, files)
