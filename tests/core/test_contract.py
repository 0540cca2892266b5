"""Contracts share fields by extending one class, and an error about several fields names one of them."""

from typing import Self

import pytest
from pydantic import ValidationError, model_validator

from ablations.core.contract import Contract, conflict
from ablations.core.errors import first_problem, one_line


class Inner(Contract):
    deep: int = 0


class Shared(Contract):
    size: int
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.size > 3 + self.inner.deep:
            raise conflict("inner.deep", f"{{too}} little for {self.size}; raise it")
        return self


class Asked(Shared):
    size: int = 1
    name: str = "a"


class Told(Shared):
    seed: int


class Outer(Contract):
    spec: Told


def test_shared_fields_go_over_in_one_expression():
    asked = Asked(inner=Inner(deep=2))
    assert asked.fields_of(Shared) == {"size": 1, "inner": Inner(deep=2)}
    assert Told(seed=3, **asked.fields_of(Shared)) == Told(seed=3, size=1, inner=Inner(deep=2))


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Asked(size=4), "inner.deep"),
        (lambda: Told(size=4, seed=0), "inner.deep"),
        (lambda: Outer.model_validate({"spec": {"size": 4, "seed": 0}}), "spec.inner.deep"),
        (lambda: Outer.model_validate_json('{"spec": {"size": 4, "seed": 0}}'), "spec.inner.deep"),
    ],
)
def test_a_conflict_is_named_by_its_key_wherever_the_contract_is(build, key):
    with pytest.raises(ValidationError) as caught:
        build()
    assert first_problem(caught.value) == (key, "{too} little for 4; raise it")


def test_a_problem_of_the_whole_has_no_key():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate([])
    assert first_problem(caught.value)[0] == ""
    assert one_line(caught.value).startswith("(top level): Input should be")
