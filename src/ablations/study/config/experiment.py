"""What experiments of both methods are configured with."""

from typing import Annotated, Any

from pydantic import Field

from ablations.study.contracts.base import Contract
from ablations.study.contracts.paper import Expectation, Identifier

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]


class Ablation(Contract):
    """One experiment: the baseline with one component group changed."""

    title: str
    """What tables call it."""
    section: Annotated[str, Field(pattern=r"\S")]
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    change: dict[str, Any]
    """Overrides of the baseline, by component group."""
    compound: bool = False
    """Allow more than one component group to change."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts of the effect."""
    versus: Identifier | None = None
    """Experiment the effect is measured against; null: the SDTP baseline, or nothing for decoding."""
