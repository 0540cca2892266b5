"""What statistics take and give: resampling, estimates and comparisons."""

from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt

from ablations.study.contracts.base import Contract
from ablations.study.contracts.paper import Identifier, PaperSettings

Measure = Literal["quality", "speed", "ranking"]


class Resampling(Contract):
    """How intervals are resampled; p-values are those of t tests and need no resampling."""

    alpha: float
    """Intervals cover 1 - alpha."""
    resamples: int
    """Bootstrap resamples."""
    seed: int
    """Seed; the same for every quantity, so that no result depends on the order of computation."""

    @classmethod
    def of(cls, settings: PaperSettings) -> Self:
        """How the paper's intervals are resampled."""
        return cls(alpha=settings.thresholds.alpha, resamples=settings.resamples, seed=settings.seed)


class Estimate(Contract):
    """A mean over documents with its interval."""

    value: float
    """Mean over documents: nats per token (quality) or log ratio (speed)."""
    low: float | None
    """Lower end of the interval; null where the data define none."""
    high: float | None
    """Upper end of the interval; null where the data define none."""
    n: NonNegativeInt
    """Documents."""
    sd: NonNegativeFloat | None
    """Standard deviation over documents; null for a single one."""


class Comparison(Contract):
    """An arm's paired results minus those of another arm, on the documents that both have."""

    arm: Identifier
    """Experiment."""
    versus: Identifier | None
    """Experiment it is compared with; null is the reference measured beside the arm."""
    measure: Measure
    """`quality`: difference of NLL, nats per token; `speed`: difference of log speed-ups; `ranking`:
    difference of rank correlations (`versus` null: the same scorer before training)."""
    estimate: Estimate
    """The effect."""
    unpaired: NonNegativeInt
    """Documents that only one of the two arms has; they are left out."""
    p: float
    """Two-sided p-value of the paired t test."""
    p_adjusted: float
    """The same after Holm's step-down over the family."""
    mde: NonNegativeFloat | None
    """Smallest true effect that this n and spread detect with 80 % power; null for a single document."""
    log_spread: Estimate | None
    """Log ratio of the arm's standard deviation over documents to the other arm's; null where undefined."""
