"""Statistics of paired measurements; the unit is the document (or prompt), never the token or the repeat.

Speed is handled on the log scale throughout: a *log speed-up* is the logarithm of reference seconds over
arm seconds, so that effects are differences and their exponentials are ratios of speed-ups.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from ablations.study.bootstrap import bca_interval
from ablations.study.contracts.statistics import Comparison, Estimate, Measure, Resampling

POWER = 0.8
"""Power of the minimum detectable effect."""

T_BELOW = 20
"""Means of fewer documents have Student's t interval: bootstrap intervals of so few are too narrow."""

SPREAD_FROM = 8
"""Fewest documents for an interval of a ratio of standard deviations."""

Name = TypeVar("Name", bound=Hashable)


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


def log_speedup(pairs: Iterable[Pair]) -> float:
    """Mean over repeats of log(reference seconds / arm seconds): the log of their geometric mean."""
    return float(np.mean([math.log(pair.reference / pair.arm) for pair in pairs]))


def tokens_per_forward(accepted: int, forwards: int) -> float:
    """Mean acceptance length: accepted draft tokens per target forward of the rounds, and the forward's own.

    The prefill is no round: neither it nor the token that it gives is counted. Without drafts it is 1, and so
    it is where no round was needed.

    Args:
        accepted: Draft tokens accepted and emitted.
        forwards: Target forwards after the prefill.
    """
    return 1 + accepted / max(1, forwards)


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
    return _detectable_errors(n, alpha) * deviation / math.sqrt(n)


@lru_cache(maxsize=256)
def _detectable_errors(n: int, alpha: float) -> float:
    """The minimum detectable effect of n documents in standard errors."""
    return float(stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(POWER, n - 1))


def _constant(data: np.ndarray) -> bool:
    """Whether all values are equal but for rounding."""
    return bool(np.ptp(data) <= 1e-12 * max(1.0, float(np.abs(data).max())))


def _log_spread(arm: np.ndarray, versus: np.ndarray, resampling: Resampling) -> Estimate | None:
    """Paired bootstrap of the log ratio of standard deviations of two samples, shape (n,) each."""
    if len(arm) < SPREAD_FROM or _constant(arm) or _constant(versus):
        return None

    def statistic(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(np.std(first, axis=axis, ddof=1)) - np.log(np.std(second, axis=axis, ddof=1))

    low, high = bca_interval((arm, versus), statistic, resampling)
    return Estimate(value=float(statistic(arm, versus)), low=low, high=high, n=len(arm), sd=None)
