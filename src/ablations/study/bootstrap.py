"""Bootstrap intervals: BCa (Efron 1987) at a level adjusted for small samples."""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from scipy import stats

from ablations.study.contracts.statistics import Resampling


@lru_cache(maxsize=256)
def bootstrap_level(alpha: float, n: int) -> float:
    """Confidence level to ask of a bootstrap of n values so that its interval covers 1 - alpha.

    Resamples of n values spread by a factor sqrt((n - 1) / n) too little and know nothing of Student's t;
    the level that makes up for both is that of the expanded percentile interval of Hesterberg (2015).
    """
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(alpha / 2, n - 1))
    return float(1 - 2 * tail)


def bca_interval(
    data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], resampling: Resampling
) -> tuple[float | None, float | None]:
    """Both ends of the interval of a statistic; None and None where the data define none.

    Args:
        data: One or more samples, float, shape (n,) each, n >= 2; several are resampled together.
        statistic: Reduces the dimension `axis` of its samples, which has n values.
        resampling: Coverage, resamples and seed.
    """
    drawn = _drawn(len(data[0]), resampling.resamples, resampling.seed)
    # Resamples lie side by side in memory: numpy adds up long rows far faster than many short ones.
    distribution = statistic(*(values.take(drawn) for values in data), axis=0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # Where BCa is undefined scipy warns and returns NaN; that is reported as no interval.
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


@lru_cache(maxsize=8)
def _drawn(n: int, resamples: int, seed: int) -> np.ndarray:
    """Indices of bootstrap resamples of n values, shape (n, resamples), the same in every interval."""
    return np.ascontiguousarray(np.random.default_rng(seed).integers(0, n, (resamples, n)).T)
