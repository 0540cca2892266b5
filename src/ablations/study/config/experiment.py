"""What experiments of both methods are configured with."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ablations.core.contract import Contract, Identifier, conflict
from ablations.evidence.expectations import Expectation

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]


class Ablation(Contract):
    """One experiment: what it starts from with one component group changed."""

    title: str
    """What tables call it."""
    section: Annotated[str, Field(pattern=r"\S")]
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    origin: Identifier | None = Field(default=None, alias="from")
    """Experiment that this one starts from: it inherits that one's whole change, and its effect is measured
    against that one. Null: it starts from the baseline."""
    change: dict[str, Any]
    """Overrides by component group of what the experiment starts from."""
    compound: bool = False
    """Allow more than one component group to differ from the experiment that the effect is measured against
    (from the baseline where there is none)."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts of the effect."""
    versus: Identifier | None = None
    """Experiment that the effect is measured against and nothing is inherited from. Null, without `from`: the
    SDTP baseline, or nothing for decoding."""

    @model_validator(mode="after")
    def _is_compared_with_one(self) -> Self:
        if self.origin is not None and self.versus is not None:
            raise ValueError(
                "'from' and 'versus' both say what it is compared with; leave one out (in an overlay by null)"
            )
        return self

    @model_validator(mode="after")
    def _expects_each_thing_once(self) -> Self:
        for key in ("text", "retrieval"):
            if self.expect.quality is not None and getattr(self.expect, key) is not None:
                raise conflict(f"expect.{key}", "'quality' is 'text' and 'retrieval'; leave one of them out")
        others = [key for key, value in self.expect if key != "quality" and value]
        if self.expect.quality == "crash" and others:
            raise conflict(
                f"expect.{min(others)}", "what crashes has no result; leave it out beside 'quality: crash'"
            )
        return self
