"""Statistics of paired measurements; the unit is the document (or prompt), never the token or the round.

Speed is handled on the log scale throughout: a *log speed-up* is the logarithm of reference seconds over
arm seconds, so that effects are differences and their exponentials are ratios of speed-ups.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Literal, Protocol, TypeVar

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, NonNegativeInt
from scipy import stats

from ablations.core.contract import Contract, Identifier

Endpoint = Literal["quality", "speed", "ranking"]

Name = TypeVar("Name", bound=Hashable)

POWER = 0.8
"""Power of the minimum detectable effect."""

T_BELOW = 20
"""Fewest documents for a bootstrap interval; those of fewer are too narrow, so theirs is Student's t."""

SPREAD_FROM = 8
"""Fewest documents for an interval of a ratio of standard deviations."""


class Pair(Protocol):
    """An interleaved measurement of an arm and its reference, seconds."""

    @property
    def arm(self) -> float:
        """Seconds of the arm."""
        ...

    @property
    def reference(self) -> float:
        """Seconds of the reference."""
        ...

    @property
    def again(self) -> float | None:
        """Seconds of the reference's second run in the round; None where there was none."""
        ...


class Resampling(Contract):
    """How intervals are resampled; p-values are those of t tests and need no resampling."""

    alpha: float
    """Intervals cover 1 - alpha."""
    resamples: int
    """Bootstrap resamples."""
    seed: int
    """Seed; the same for every quantity, so that no result depends on the order of computation."""


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
    """Paired results of an arm minus those of another arm, on the documents that both have."""

    arm: Identifier
    """Experiment."""
    versus: Identifier | None
    """Experiment that it is compared with; null for the reference measured beside the arm."""
    measure: Endpoint
    """`quality`: difference of NLL, nats per token; `speed`: difference of log speed-ups; `ranking`:
    difference of rank correlations (`versus` null: the same scorer before training)."""
    estimate: Estimate
    """The effect."""
    unpaired: NonNegativeInt
    """Documents that only one of the two arms has; the estimate leaves them out."""
    p: float
    """Two-sided p-value of the paired t test."""
    p_adjusted: float
    """That p-value after Holm's step-down over the family."""
    mde: NonNegativeFloat | None
    """Smallest true effect that n documents of this spread detect with 80 % power; null for a single one."""
    log_spread: Estimate | None
    """Log ratio of the arm's standard deviation over documents to the other arm's; null where undefined."""


def log_speedup(pairs: Iterable[Pair]) -> float:
    """Log speed-up of one document: the median over its rounds of log(reference seconds / arm seconds)."""
    return float(np.median([math.log(pair.reference / pair.arm) for pair in pairs]))


def log_noise(pairs: Iterable[Pair]) -> float | None:
    """What `log_speedup` says of the reference's second runs, which have no effect; None where none ran."""
    logs = [math.log(pair.reference / pair.again) for pair in pairs if pair.again is not None]
    return float(np.median(logs)) if logs else None


def median_seconds(seconds: Iterable[float]) -> float:
    """Time of one document: the median over its rounds."""
    return float(np.median(list(seconds)))


def tokens_per_forward(accepted: int, forwards: int) -> float:
    """Mean acceptance length: tokens emitted per target forward after the prefill.

    A round emits its accepted draft tokens and one token of the target itself. The prefill is no round:
    neither its forward nor its token is counted. The value is 1 without drafts and where there was no round.

    Args:
        accepted: Draft tokens accepted and emitted.
        forwards: Target forwards after the prefill.
    """
    return 1 + accepted / max(1, forwards)


def estimate(values: pd.Series, resampling: Resampling) -> Estimate:
    """Mean and interval of one value per document.

    Below `T_BELOW` documents the interval is Student's t, which is exact for normal data and consistent with
    the p-value and the detectable effect. From `T_BELOW` on it is a BCa bootstrap interval (Efron 1987) at a
    level adjusted for small samples. Where all documents have one value, both ends are that value. A single
    document, or data whose acceleration is undefined, has no interval.

    Args:
        values: One value per document, shape (n,), n >= 1.
        resampling: Coverage, resamples and seed.
    """
    data = values.to_numpy(dtype=float)
    mean = float(data.mean())
    if len(data) < 2:
        return Estimate(value=mean, low=None, high=None, n=len(data), sd=None)
    deviation = float(data.std(ddof=1))
    if _constant(data):
        return Estimate(value=mean, low=mean, high=mean, n=len(data), sd=0.0)
    if len(data) < T_BELOW:
        half = stats.t.ppf(1 - resampling.alpha / 2, len(data) - 1) * deviation / math.sqrt(len(data))
        ends: tuple[float | None, float | None] = mean - float(half), mean + float(half)
    else:
        ends = bca_interval((data,), np.mean, resampling)
    return Estimate(value=mean, low=ends[0], high=ends[1], n=len(data), sd=deviation)


def compare(
    arm: pd.Series,
    versus: pd.Series | None,
    resampling: Resampling,
    *,
    names: tuple[str, str | None],
    measure: Endpoint,
) -> Comparison | None:
    """Compare two arms on the documents they share; None where they share none.

    Args:
        arm: Paired result of the arm per document (index: document), shape (n,).
        versus: Paired result of the other arm per document; None compares with the reference itself.
        resampling: Coverage, resamples and seed.
        names: Ids of the two arms.
        measure: What the values are.
    """
    if versus is None:
        versus = pd.Series(0.0, index=arm.index)
    shared = arm.index.intersection(versus.index).sort_values()
    if shared.empty:
        return None
    arm_values, versus_values = arm.loc[shared], versus.loc[shared]
    differences = arm_values - versus_values
    effect = estimate(differences, resampling)
    p = paired_p(differences)
    return Comparison(
        arm=names[0],
        versus=names[1],
        measure=measure,
        estimate=effect,
        unpaired=len(arm) + len(versus) - 2 * len(shared),
        p=p,
        p_adjusted=p,
        mde=None if effect.sd is None else minimum_detectable_effect(effect.sd, effect.n, resampling.alpha),
        log_spread=_log_spread(arm_values.to_numpy(float), versus_values.to_numpy(float), resampling),
    )


def paired_p(differences: pd.Series) -> float:
    """Two-sided p-value of a zero mean by the paired t test, the test of the minimum detectable effect.

    The p-value of a randomisation test is at least 2^(1-n), too much for an adjusted level where a slow arm
    has few prompts. Where all differences are equal, t is undefined, and 2^(1-n) is the p-value.
    """
    data = differences.to_numpy(dtype=float)
    if not data.any():
        return 1.0
    if len(data) < 2 or _constant(data):
        return 2.0 ** (1 - len(data))
    return float(stats.ttest_1samp(data, 0.0).pvalue)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's step-down adjustment (Holm 1979) of a family of p-values, by name."""
    adjusted: dict[Name, float] = {}
    running = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def minimum_detectable_effect(deviation: float, n: int, alpha: float) -> float:
    """Smallest mean difference that a two-sided paired t test at `alpha` finds with 80 % power.

    Args:
        deviation: Standard deviation of the paired differences.
        n: Documents, >= 2.
        alpha: Level of the test, before any adjustment for multiplicity.
    """
    return _detectable_errors(n, alpha) * deviation / math.sqrt(n)


@lru_cache(maxsize=256)
def bootstrap_level(alpha: float, n: int) -> float:
    """Confidence level at which a bootstrap interval of n values covers 1 - alpha.

    Means of resamples spread too little, by a factor of sqrt((n - 1) / n), and their quantiles are normal
    instead of Student's t. The level of the expanded percentile interval (Hesterberg 2015) corrects both.
    """
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(alpha / 2, n - 1))
    return float(1 - 2 * tail)


def bca_interval(
    data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], resampling: Resampling
) -> tuple[float | None, float | None]:
    """Both ends of the BCa bootstrap interval of a statistic; two None where the data define none.

    Args:
        data: One or more samples, float, shape (n,) each, n >= 2; several are resampled together.
        statistic: Reduces dimension `axis` of its samples, over the n values.
        resampling: Coverage, resamples and seed.
    """
    indices = _resample_indices(len(data[0]), resampling.resamples, resampling.seed)
    # A column is a resample: numpy adds n long rows far faster than it adds up many short rows.
    distribution = statistic(*(values.take(indices) for values in data), axis=0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # Where BCa is undefined, scipy warns and returns NaN, which becomes None below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            data,
            statistic,
            paired=len(data) > 1,
            vectorized=True,
            confidence_level=bootstrap_level(resampling.alpha, len(data[0])),
            n_resamples=0,
            method="BCa",
            bootstrap_result=SimpleNamespace(bootstrap_distribution=distribution),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


@lru_cache(maxsize=256)
def _detectable_errors(n: int, alpha: float) -> float:
    """Minimum detectable effect of n documents, in standard errors."""
    return float(stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(POWER, n - 1))


@lru_cache(maxsize=8)
def _resample_indices(n: int, resamples: int, seed: int) -> np.ndarray:
    """Indices of bootstrap resamples of n values, int, shape (n, resamples), the same for every interval."""
    return np.ascontiguousarray(np.random.default_rng(seed).integers(0, n, (resamples, n)).T)


def _constant(data: np.ndarray) -> bool:
    """Whether all values are equal up to rounding."""
    return bool(np.ptp(data) <= 1e-12 * max(1.0, float(np.abs(data).max())))


def _log_spread(arm: np.ndarray, versus: np.ndarray, resampling: Resampling) -> Estimate | None:
    """Paired bootstrap of the log ratio of standard deviations of two samples, shape (n,) each."""
    if len(arm) < SPREAD_FROM or _constant(arm) or _constant(versus):
        return None

    def statistic(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(np.std(first, axis=axis, ddof=1)) - np.log(np.std(second, axis=axis, ddof=1))

    low, high = bca_interval((arm, versus), statistic, resampling)
    return Estimate(value=float(statistic(arm, versus)), low=low, high=high, n=len(arm), sd=None)
