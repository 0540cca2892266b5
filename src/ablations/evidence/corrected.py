"""Speed of decoding from many priced prompts, corrected by the few of them that were timed.

Kinds of prompts are strata of equal weight; the timed prompts of a kind are a random part of its priced ones.
The estimate is the stratified regression estimator of double sampling (Cochran, Sampling Techniques, 1977,
sections 12.6 and 12.7): the mean of the measured values, plus their slope on prices times the difference of
the mean prices of all prompts and of the timed ones. So prices that are wrong cost precision, never validity.
"""

import math

import numpy as np
import pandas as pd

from ablations.evidence.statistics import UNDEFINED, Array, Estimate, Mean, kinds_of

FEW = 15
"""Timed prompts under which the slope is not estimated but taken as 1."""


def corrected_mean(measured: pd.Series, priced: pd.Series) -> Mean:
    """Mean over all prompts of what was measured on some of them.

    Args:
        measured: Measured value of each timed prompt (index), shape (n,); of two arms their differences.
        priced: Price of each prompt (index) in the same unit, the timed ones among them, shape (N,).

    Returns:
        The mean, with one estimate of its variance and no skewness; undefined where a kind has no timed
        prompt, or no kind has two.
    """
    every_kind, timed_kinds = (np.array(kinds_of(values.index)) for values in (priced, measured))
    values, prices = measured.to_numpy(dtype=float), priced[measured.index].to_numpy(dtype=float)
    every = priced.to_numpy(dtype=float)
    groups = [
        (values[timed_kinds == kind], prices[timed_kinds == kind], every[every_kind == kind])
        for kind in dict.fromkeys(every_kind)
    ]
    spare = len(values) - len(groups)
    if any(not len(own) for own, _, _ in groups):
        return UNDEFINED
    return _regression(groups, spare) if len(values) >= FEW else _difference(groups, spare)


def corrected_estimate(mean: Mean, prompts: int, alpha: float) -> Estimate:
    """A corrected mean with its unadjusted interval; its standard deviation is that of as many plain values.

    Args:
        mean: The corrected mean.
        prompts: Prompts that were priced.
        alpha: The interval covers 1 - alpha.
    """
    low, high = (float(end) for end in mean.interval(alpha))
    known = math.isfinite(low)
    error = float(mean.error[0])
    return Estimate(
        value=float(mean.value),
        low=low if known else None,
        high=high if known else None,
        n=prompts,
        sd=error * math.sqrt(prompts) if known else None,
    )


Groups = list[tuple[Array, Array, Array]]
"""Of each kind: measured values and prices of its timed prompts, and prices of all its prompts."""


def _regression(groups: Groups, spare: int) -> Mean:
    """The estimate with the within-kind slope of measured values on prices."""
    weight, df = 1 / len(groups), spare - 1
    deviations = [(values - values.mean(), prices - prices.mean()) for values, prices, _ in groups]
    squares = sum(float(prices @ prices) for _, prices in deviations)
    slope = sum(float(values @ prices) for values, prices in deviations) / squares if squares else 0.0
    rest = sum(float(((values - slope * prices) ** 2).sum()) for values, prices in deviations) / df
    gap = weight * sum(float(every.mean() - prices.mean()) for _, prices, every in groups)
    of_means = sum(weight**2 / len(values) for values, _, _ in groups)
    of_slope = gap**2 / squares if squares else 0.0
    value = weight * sum(float(values.mean()) for values, _, _ in groups) + slope * gap
    terms = [(rest * (of_means + of_slope), df), *_of_prices(groups, slope)]
    return _mean(value, terms, 0.0)


def _difference(groups: Groups, spare: int) -> Mean:
    """The estimate with a slope of 1: the mean price, plus the mean of measured values minus prices."""
    weight = 1 / len(groups)
    rests = [values - prices for values, prices, _ in groups]
    deviations = [
        (rest - rest.mean(), prices - prices.mean())
        for rest, (_, prices, _) in zip(rests, groups, strict=True)
    ]
    among = 1 / spare if spare else math.nan
    variance = among * sum(float(rest @ rest) for rest, _ in deviations)
    covariance = among * sum(float(rest @ prices) for rest, prices in deviations)
    value = weight * sum(
        float(every.mean() + rest.mean()) for rest, (_, _, every) in zip(rests, groups, strict=True)
    )
    terms = [
        (variance * sum(weight**2 / len(rest) for rest in rests), max(1, spare)),
        *_of_prices(groups, 1.0),
    ]
    both = 2 * covariance * sum(weight**2 / len(every) for _, _, every in groups)
    return _mean(value, terms, both)


def _of_prices(groups: Groups, slope: float) -> list[tuple[float, int]]:
    """Variance of each kind's mean price, with its degrees of freedom."""
    weight = 1 / len(groups)
    return [
        (slope**2 * weight**2 * float(every.var(ddof=1)) / len(every), len(every) - 1)
        for _, _, every in groups
        if len(every) > 1
    ]


def _mean(value: float, terms: list[tuple[float, int]], covariance: float) -> Mean:
    total = sum(variance for variance, _ in terms)
    spread = sum(variance**2 / df for variance, df in terms)
    # A covariance estimated from few prompts must not take the variance of what was timed away.
    variance = max(total + covariance, terms[0][0])
    df = total**2 / spread if spread else float(terms[0][1])
    return Mean(np.array(value), np.array([np.sqrt(variance)]), np.array([df]), np.array([0.0]))
