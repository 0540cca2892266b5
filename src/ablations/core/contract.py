"""What every contract between jobs has in common: strict, immutable, self-describing models."""

from collections import Counter
from collections.abc import Hashable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Entry = TypeVar("Entry", bound=Hashable)


def _check_distinct(values: tuple[Entry, ...]) -> tuple[Entry, ...]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{value!r} is there {count} times; name it once")
    return values


Distinct = AfterValidator(_check_distinct)
"""Refuses a list with a repeated entry, which would be measured once and counted twice."""


class Contract(BaseModel):
    """An immutable value that crosses a job boundary.

    Unknown keys, NaN and infinity are errors. Attribute docstrings become the descriptions of the
    exported JSON schema. The code digest leaves docstrings out, so that their wording never reruns a job.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # Fields may be called `model_...`, which pydantic reserves by default.
        protected_namespaces=(),
    )

    def fields_of(self, base: type[BaseModel]) -> dict[str, Any]:
        """Values of the fields of `base`, a contract that this one extends, by name."""
        return {name: getattr(self, name) for name in base.model_fields}


def conflict(key: str, message: str) -> ValidationError:
    """An error for a validator to raise that looks at several fields: `key` is the one to change.

    Args:
        key: Key within the validated contract, with dots.
        message: What is wrong with its value, and what to do.
    """
    problem = PydanticCustomError("conflict", "{message}", {"key": key, "message": message})
    details = InitErrorDetails(type=problem, loc=tuple(key.split(".")), input=...)
    return ValidationError.from_exception_data("conflict", [details])


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
"""Id of an experiment."""

Identifiers = Annotated[tuple[Identifier, ...], Distinct]
"""Ids of different experiments."""

Proportion = Annotated[float, Field(ge=0.0, le=1.0)]
"""A number from 0 to 1."""
