"""What every contract between jobs has in common: strict, immutable, self-describing models."""

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

Entry = TypeVar("Entry", bound=Hashable)


def _check_distinct(values: tuple[Entry, ...]) -> tuple[Entry, ...]:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f"{value!r} is there {times} times; name it once")
    return values


Distinct = AfterValidator(_check_distinct)
"""No entry of a list may be there twice: it would be measured once and counted as more."""


class Contract(BaseModel):
    """An immutable value that crosses a job boundary.

    Unknown keys, NaN and infinity are errors. Attribute docstrings become the descriptions of the
    exported JSON schema; the code digest leaves docstrings out, so that wording never reruns a job.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # `model` is a word of this field, not only of pydantic.
        protected_namespaces=(),
    )
