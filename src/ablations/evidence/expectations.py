"""What was expected of each experiment, and how large an effect must be to count."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from ablations.core.contract import Contract, Identifier, Identifiers

Method = Literal["sdtp", "dynatree"]
Level = Literal["same", "up", "up_strong", "down", "down_strong", "unstable", "crash"]


class Expectation(Contract):
    """What a hypothesis predicts of the effect; a null or empty field predicts nothing."""

    quality: Level | None = None
    """Predicted effect on quality (`down`: the NLL rises)."""
    speed: Level | None = None
    """Predicted effect on speed (`up`: faster)."""
    above: Identifiers = ()
    """Experiments whose speed-up this one exceeds."""
    below: Identifiers = ()
    """Experiments whose speed-up exceeds this one's."""
    about: Identifiers = ()
    """Experiments whose speed-up this one equals within the margin."""
    less_traffic: Identifiers = ()
    """Experiments that send more bytes over the pipeline's boundaries than this one."""


class Experiment(Contract):
    """One row of the study as the paper sees it."""

    id: Identifier
    """Id in the configuration."""
    method: Method
    """Method that it studies."""
    title: str
    """What tables call it."""
    section: str
    """Subsection of the paper it belongs to."""
    step: str | None = None
    """What the row adds or removes, as forward and backward tables call it."""
    change: dict[str, Any]
    """What differs from the baseline; empty for the baseline."""
    hypothesis: str | None = None
    """What the experiment tests, one sentence."""
    expect: Expectation = Expectation()
    """What the hypothesis predicts."""
    versus: Identifier | None
    """Experiment that the effect is measured against; null where it is the reference beside the arm."""
    records: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths of its records, relative to the working directory, one per seed; only the first is timed."""
    budget: dict[str, Any] = Field(default={})
    """What differs from the method's budget (fewer prompts, for example)."""


class Thresholds(Contract):
    """Where `same` ends and `strong` begins."""

    quality_same: PositiveFloat = 0.05
    """Largest |difference of NLL| (nats per token) that counts as the same quality."""
    quality_strong: PositiveFloat = 0.3
    """Smallest |difference of NLL| (nats per token) that counts as a strong effect."""
    speed_same: Annotated[float, Field(gt=1.0)] = 1.05
    """Largest ratio of speed-ups (either way) that counts as the same speed."""
    speed_strong: Annotated[float, Field(gt=1.0)] = 1.5
    """Smallest ratio of speed-ups (either way) that counts as a strong effect."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Family-wise error rate; intervals cover 1 - alpha."""
