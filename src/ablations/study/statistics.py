"""Statistics of paired measurements; the unit is the document (or prompt), never the token or the repeat.

Speed is handled on the log scale throughout: a *log speed-up* is the logarithm of reference seconds over
arm seconds, so that effects are differences and their exponentials are ratios of speed-ups.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Literal, Protocol, TypeVar

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, NonNegativeInt
from scipy import stats

from ablations.study.contracts.base import Contract
from ablations.study.contracts.paper import Identifier

POWER = 0.8
"""Power of the minimum detectable effect."""

T_BELOW = 20
"""Means of fewer documents have Student's t interval: bootstrap intervals of so few are too narrow."""

SPREAD_FROM = 8
"""Fewest documents for an interval of a ratio of standard deviations."""

Name = TypeVar("Name", bound=Hashable)

Measure = Literal["quality", "speed", "ranking"]


class Pair(Protocol):
    """An interleaved measurement of arm and reference, seconds."""

    @property
    def arm(self) -> float:
        """Seconds of the arm."""
        ...

    @property
    def reference(self) -> float:
        """Seconds of the reference."""
        ...


class Resampling(Contract):
    """How intervals and p-values are resampled."""

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


def log_speedup(pairs: Iterable[Pair]) -> float:
    """Mean over repeats of log(reference seconds / arm seconds): the log of their geometric mean."""
    return float(np.mean([math.log(pair.reference / pair.arm) for pair in pairs]))


def estimate(values: pd.Series, resampling: Resampling) -> Estimate:
    """Mean and interval of one value per document.

    Under `T_BELOW` documents the interval is Student's t, which is exact for normal data and goes with the
    p-value and the detectable effect; from there on it is a BCa bootstrap interval (Efron 1987) at a level
    adjusted for small samples. Where every document has the same value, so have both ends. A single
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
        low, high = mean - float(half), mean + float(half)
    else:
        low, high = _bca((data,), _mean, resampling)
    return Estimate(value=mean, low=low, high=high, n=len(data), sd=deviation)


def mean_of_kinds(values: pd.Series, alpha: float) -> Estimate:
    """Mean over kinds of the mean over a kind's documents, with its interval.

    Kinds weigh the same however many documents they have, and are not sampled: only documents are. The
    interval is Student's t with the degrees of freedom of Welch (1947) and Satterthwaite (1946), each kind
    with a variance of its own; with one kind it is that of the t test. A kind of a single document leaves
    no interval.

    Args:
        values: One value per document, shape (n,), n >= 1; the index has a level `kind`.
        alpha: The interval covers 1 - alpha.
    """
    kinds = values.groupby(level="kind")
    counts, means = kinds.size(), kinds.mean()
    mean = float(means.mean())
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    if counts.min() < 2:
        return Estimate(value=mean, low=None, high=None, n=len(values), sd=deviation)
    variances = kinds.var(ddof=1) / counts
    total = float(variances.sum())
    if total == 0.0:
        return Estimate(value=mean, low=mean, high=mean, n=len(values), sd=deviation)
    freedom = total**2 / float((variances**2 / (counts - 1)).sum())
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * math.sqrt(total) / len(counts)
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values), sd=deviation)


def compare(
    arm: pd.Series,
    versus: pd.Series | None,
    resampling: Resampling,
    *,
    names: tuple[str, str | None],
    measure: Measure,
) -> Comparison | None:
    """Compare two arms on the documents they share; None where they share none.

    Args:
        arm: The arm's paired result per document (index: document), shape (n,).
        versus: The other arm's; None compares with the reference itself.
        resampling: Coverage, resamples and seed.
        names: Ids of the two arms.
        measure: What the values are.
    """
    versus_values = pd.Series(0.0, index=arm.index) if versus is None else versus
    paired = pd.concat({"arm": arm, "versus": versus_values}, axis=1, join="inner").sort_index()
    if paired.empty:
        return None
    effect = estimate(paired["arm"] - paired["versus"], resampling)
    p = paired_p(paired["arm"] - paired["versus"])
    return Comparison(
        arm=names[0],
        versus=names[1],
        measure=measure,
        estimate=effect,
        unpaired=len(arm.index.symmetric_difference(versus_values.index)),
        p=p,
        p_adjusted=p,
        mde=None if effect.sd is None else minimum_detectable_effect(effect.sd, effect.n, resampling.alpha),
        log_spread=_log_spread(paired, resampling),
    )


def paired_p(differences: pd.Series) -> float:
    """Two-sided p-value of a zero mean: the paired t test, with which the detectable effect goes.

    A randomisation test could not fall under 2^(1-n), which no adjusted level allows for the few prompts
    of a slow arm. Where all differences are equal t is undefined, and that bound is the p-value.
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
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
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
    freedom = n - 1
    quantiles = stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom)
    return float(quantiles * deviation / math.sqrt(n))


def bootstrap_level(alpha: float, n: int) -> float:
    """Confidence level to ask of a bootstrap of n values so that its interval covers 1 - alpha.

    Resamples of n values spread by a factor sqrt((n - 1) / n) too little and know nothing of Student's t;
    the level that makes up for both is that of the expanded percentile interval of Hesterberg (2015).
    """
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(alpha / 2, n - 1))
    return float(1 - 2 * tail)


def _mean(data: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(data, axis=axis)


def _constant(data: np.ndarray) -> bool:
    """Whether all values are equal but for rounding."""
    return bool(np.ptp(data) <= 1e-12 * max(1.0, float(np.abs(data).max())))


def _bca(
    data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], resampling: Resampling
) -> tuple[float | None, float | None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # Where BCa is undefined scipy warns and returns NaN; that is reported as no interval.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            data,
            statistic,
            paired=len(data) > 1,
            vectorized=True,
            confidence_level=bootstrap_level(resampling.alpha, len(data[0])),
            n_resamples=resampling.resamples,
            method="BCa",
            rng=np.random.default_rng(resampling.seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _log_spread(paired: pd.DataFrame, resampling: Resampling) -> Estimate | None:
    """Paired bootstrap of the log ratio of standard deviations; columns `arm` and `versus`."""
    arm, versus = (paired[name].to_numpy(dtype=float) for name in ("arm", "versus"))
    if len(paired) < SPREAD_FROM or _constant(arm) or _constant(versus):
        return None

    def statistic(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(np.std(first, axis=axis, ddof=1)) - np.log(np.std(second, axis=axis, ddof=1))

    low, high = _bca((arm, versus), statistic, resampling)
    return Estimate(value=float(statistic(arm, versus)), low=low, high=high, n=len(paired), sd=None)
