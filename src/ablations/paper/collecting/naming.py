"""Errors of arithmetic as one line that names the records."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from ablations.core.errors import UserError, one_line
from ablations.evidence.expectations import Experiment


@contextmanager
def naming(*experiments: Experiment) -> Iterator[None]:
    """Compute results of experiments whose records may hold numbers that nothing can be computed from.

    Raises:
        UserError: a result is infinite, undefined or out of its range.
    """
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        paths = ", ".join(path for item in experiments for path in item.records)
        why = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(
            f"{paths}: no result can be computed ({why}); delete it and run snakemake again"
        ) from None
