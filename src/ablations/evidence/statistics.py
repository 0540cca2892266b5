"""Statistics of paired measurements; the unit is the document (or prompt), never the token or the round.

Speed is handled on the log scale throughout: a *log speed-up* is the logarithm of reference seconds over
arm seconds, so that effects are differences and their exponentials are ratios of speed-ups.

Intervals and p-values are one closed formula (`Mean`): nothing is resampled.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from scipy import special

from ablations.core.contract import Contract, Identifier

Endpoint = Literal["text", "retrieval", "speed", "ranking"]
"""`text`: KL divergence of the next-token distribution from the unpruned model's, nats per token;
`retrieval`: NLL of the answer, nats per token; `speed`: log speed-up; `ranking`: rank correlation."""

ANY_SEED = "any"
"""Column of values that no training seed plays a part in: they are the same for all."""

Array = np.ndarray[Any, np.dtype[np.float64]]

_ROUNDING = 1e-12
"""Values that differ by less, relative to the largest or to one, are equal but for rounding."""


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


class Estimate(Contract):
    """A mean over documents with its interval, unadjusted for other comparisons."""

    value: float
    """Mean over documents: nats per token (text, retrieval), log ratio (speed) or correlation (ranking)."""
    low: float | None
    """Lower end of the interval; null where the data define none."""
    high: float | None
    """Upper end of the interval; null where the data define none."""
    n: NonNegativeInt
    """Documents."""
    sd: NonNegativeFloat | None
    """Standard deviation over documents; null for a single one. Of a speed from priced prompts it is the
    standard error times the square root of their number."""


class Comparison(Contract):
    """Paired results of an arm minus those of another arm, on the documents that both have."""

    arm: Identifier
    """Experiment."""
    versus: Identifier | None
    """Experiment that it is compared with; null for the reference measured beside the arm."""
    measure: Endpoint
    """What is compared; of `ranking`, `versus` null is the same scorer before training."""
    estimate: Estimate
    """The effect. Over several training seeds its interval is for any training, not for these alone."""
    unpaired: NonNegativeInt
    """Documents that only one of the two arms has; the estimate leaves them out."""
    p: float
    """Two-sided p-value of a zero effect, unadjusted; 1 where the data define none."""
    seeds: PositiveInt
    """Training seeds that both arms have; 1 where no training seed plays a part."""
    these_trainings: tuple[float, float] | None
    """Interval over documents alone, for these trainings; null where there are not several seeds."""


class Mean(NamedTuple):
    """Estimated means with one or several estimates of their variance, of which the least favourable counts.

    A mean has a t statistic by Student, T1, and one by Hall (1992), T2, which corrects for skewness:
    ``T2 = T1 + a T1^2 + a^2 T1^3 / 3 + a / 2`` with ``a = g / (3 sqrt(n))``, g the skewness of n values. Both
    fall as the hypothetical mean rises, and T2 is inverted by a cube root. p-value and interval take the
    worse of all, so that either follows from the other.

    Attributes:
        value: Means, shape (...); NaN where there is none.
        error: Standard errors, shape (..., v), one for each estimate of the variance; NaN where the data
            define none; 0 where all values are 0.
        df: Degrees of freedom, shape (..., v).
        skew: `a` above, shape (..., v).
    """

    value: Array
    error: Array
    df: Array
    skew: Array

    def p(self, cut: Array | float) -> Array:
        """Two-sided p-values of a true mean of `cut`; 1 where the data define none.

        Args:
            cut: Hypothetical means, shape (...).
        """
        gap = (self.value - np.asarray(cut))[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            student = np.where(gap == 0, 0.0, gap / self.error)
            # Where all values are zero, a mean that is not zero is infinitely far.
            hall = np.where(np.isinf(student), student, _hall(student, self.skew))
            tails = 2 * special.stdtr(self.df, -np.minimum(np.abs(student), np.abs(hall)))
        agree = np.sign(student) == np.sign(hall)
        return np.nan_to_num(np.where(agree, tails, 1.0), nan=1.0).max(axis=-1)

    def interval(self, alpha: Array | float) -> tuple[Array, Array]:
        """Both ends of the intervals outside which `p` is below `alpha`; infinite where the data define none.

        Args:
            alpha: Error levels, shape (...), each over 0 and under 1.
        """
        quantile = -special.stdtrit(self.df, np.asarray(alpha)[..., None] / 2)
        value = self.value[..., None]
        with np.errstate(invalid="ignore"):
            lows = value - self.error * np.maximum(quantile, _student(quantile, self.skew))
            highs = value - self.error * np.minimum(-quantile, _student(-quantile, self.skew))
        low, high = lows.min(axis=-1), highs.max(axis=-1)
        return np.where(np.isnan(low), -np.inf, low)[()], np.where(np.isnan(high), np.inf, high)[()]


class SeedVariance(NamedTuple):
    """How much effects differ from training to training, estimated from several rows.

    Attributes:
        variance: Variance between seeds of the means over documents, shape (...).
        df: Its degrees of freedom.
    """

    variance: Array
    df: float


UNDEFINED = Mean(np.array(np.nan), *(np.array([np.nan]) for _ in range(3)))
"""A mean of no values."""


def sample_mean(values: Array) -> Mean:
    """Means of independent values.

    One value, or several that are equal and not zero, define no interval.

    Args:
        values: One value per document, shape (..., n), n >= 1.
    """
    n = values.shape[-1]
    value = values.mean(axis=-1)
    largest = np.abs(values).max(axis=-1)
    constant = np.ptp(values, axis=-1) <= _ROUNDING * np.maximum(1.0, largest)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.asarray(values.var(axis=-1, ddof=1) if n > 1 else np.full_like(value, np.nan))
        error = np.where(constant, np.nan, np.sqrt(variance / n))
    if n > 1:
        error = np.where(largest <= _ROUNDING, 0.0, error)
    return Mean(
        np.where(largest <= _ROUNDING, 0.0, value),
        error[..., None],
        np.full((*value.shape, 1), max(n - 1.0, 1.0)),
        (skewness(values) / (3 * math.sqrt(n)))[..., None],
    )


def crossed_mean(values: Array, pool: SeedVariance | None = None) -> Mean:
    """Means over documents crossed with training seeds; both are samples, and all seeds see all documents.

    Its error is estimated from the row's own mean squares and, where given, with the variance between seeds
    of several rows. The skewness of documents counts by their share of the error.

    Args:
        values: One value per document and seed, shape (..., documents, seeds).
        pool: Variance between seeds of rows like this one.
    """
    documents, seeds = values.shape[-2:]
    means = values.mean(axis=-1)
    over_documents = sample_mean(means)
    if seeds == 1 or documents == 1:
        return over_documents
    between_documents = seeds * np.asarray(means.var(axis=-1, ddof=1))
    between_seeds = documents * seed_variance(values)
    grand = means.mean(axis=-1)[..., None, None]
    residual = values - means[..., None] - values.mean(axis=-2, keepdims=True) + grand
    rest_df = (documents - 1) * (seeds - 1)
    rest = (residual**2).sum(axis=(-2, -1)) / rest_df
    sources: list[tuple[Array, float]] = [(between_seeds, seeds - 1)]
    if pool is not None:
        sources.append((documents * pool.variance, pool.df))
    errors, freedoms = [], []
    for square, df in sources:
        total = np.maximum(between_documents, between_documents + square - rest)
        terms = between_documents**2 / (documents - 1) + square**2 / df + rest**2 / rest_df
        with np.errstate(divide="ignore", invalid="ignore"):
            freedoms.append(np.clip(total**2 / terms, 2, documents - 1))
        errors.append(np.sqrt(total / (documents * seeds)))
    error = np.stack(errors, axis=-1)
    undefined = np.isnan(over_documents.error)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 1.0, over_documents.error / error)
    return Mean(
        over_documents.value,
        np.where(undefined, np.nan, error),
        np.nan_to_num(np.stack(freedoms, axis=-1), nan=documents - 1.0),
        over_documents.skew * share**3,
    )


def seed_variance(values: Array) -> Array:
    """Variance between seeds of the means over documents.

    Args:
        values: One value per document and seed, shape (..., documents, seeds), at least two seeds.
    """
    return np.asarray(values.mean(axis=-2).var(axis=-1, ddof=1))


def pooled(variances: Sequence[Array], seeds: int) -> SeedVariance:
    """Variance between seeds of rows that are all compared with the same one, which correlates them by half.

    Args:
        variances: `seed_variance` of each row, shape (...) each.
        seeds: Seeds of each.
    """
    rows = len(variances)
    return SeedVariance(np.mean(variances, axis=0), (seeds - 1) * rows / (1 + (rows - 1) / 4))


def stacked(means: Sequence[Mean]) -> Mean:
    """Means side by side along a new last dimension.

    Args:
        means: Of one shape (...), with one or several estimates of the variance.
    """
    width = max(mean.error.shape[-1] for mean in means)

    def side_by_side(name: str) -> Array:
        columns = (getattr(mean, name) for mean in means)
        return np.stack([column[..., np.arange(width) % column.shape[-1]] for column in columns], axis=-2)

    value = np.stack([mean.value for mean in means], axis=-1)
    return Mean(value, side_by_side("error"), side_by_side("df"), side_by_side("skew"))


def skewness(values: Array) -> Array:
    """Bias-corrected skewness over the last dimension; 0 of fewer than three values, or of equal ones."""
    n = values.shape[-1]
    if n < 3:
        return np.zeros(values.shape[:-1])
    centred = values - values.mean(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (centred**3).mean(axis=-1) / (centred**2).mean(axis=-1) ** 1.5
    return np.nan_to_num(math.sqrt(n * (n - 1)) / (n - 2) * ratio, nan=0.0, posinf=0.0, neginf=0.0)


def estimate(values: pd.Series, alpha: float) -> Estimate:
    """Mean and unadjusted interval of one value per document.

    Args:
        values: One value per document, shape (n,), n >= 1.
        alpha: The interval covers 1 - alpha.
    """
    data = values.to_numpy(dtype=float)
    return _estimate(sample_mean(data), data, alpha)


def compare(
    arm: pd.DataFrame | pd.Series,
    versus: pd.DataFrame | pd.Series | None,
    alpha: float,
    *,
    names: tuple[str, str | None],
    measure: Endpoint,
    pool: SeedVariance | None = None,
) -> Comparison | None:
    """Compare two arms on the documents and training seeds they share; None where they share none.

    Args:
        arm: Result of the arm per document (index) and training seed (columns; `ANY_SEED` alone where none
            plays a part), shape (n, seeds) or, without seeds, (n,).
        versus: Result of the other arm; None compares with the reference itself.
        alpha: Intervals cover 1 - alpha.
        names: Ids of the two arms.
        measure: What the values are.
        pool: Variance between seeds of rows like this one.
    """
    paired = differences(arm, versus)
    if paired.empty:
        return None
    data = paired.to_numpy(dtype=float)
    over_seeds = data.mean(axis=1)
    effect = crossed_mean(data, pool)
    low, high = (float(end) for end in sample_mean(over_seeds).interval(alpha))
    several = data.shape[1] > 1 and math.isfinite(low)
    return Comparison(
        arm=names[0],
        versus=names[1],
        measure=measure,
        estimate=_estimate(effect, over_seeds, alpha),
        unpaired=0 if versus is None else len(arm) + len(versus) - 2 * len(paired),
        p=float(effect.p(0.0)),
        seeds=data.shape[1],
        these_trainings=(low, high) if several else None,
    )


def differences(arm: pd.DataFrame | pd.Series, versus: pd.DataFrame | pd.Series | None) -> pd.DataFrame:
    """Results of an arm minus those of another one, on the documents (rows) and seeds (columns) they share.

    Rows stand in the order of the arm. Values of `ANY_SEED` are paired with every seed of the other arm.
    """
    first, second = _by_seed(arm), None if versus is None else _by_seed(versus)
    if second is None:
        return first
    documents = first.index[first.index.isin(second.index)]
    first, second = first.loc[documents], second.loc[documents]
    if list(first.columns) == [ANY_SEED]:
        return second.rsub(first[ANY_SEED], axis=0)
    if list(second.columns) == [ANY_SEED]:
        return first.sub(second[ANY_SEED], axis=0)
    seeds = [seed for seed in first.columns if seed in second.columns]
    return first[seeds] - second[seeds]


def kinds_of(names: Iterable[str]) -> list[str]:
    """Kind of each decoding prompt, by its name (`kind/document`) in an index of values."""
    return [name.split("/", 1)[0] for name in names]


def log_speedup(pairs: Iterable[Pair]) -> float:
    """Log speed-up of one document: the median over its rounds of log(reference seconds / arm seconds)."""
    return float(np.median([math.log(pair.reference / pair.arm) for pair in pairs]))


def log_rounds_speedup(pairs: Iterable[Any]) -> float:
    """The same of decoding alone: seconds after the first token, of pairs that know when it came."""
    logs = [math.log((pair.reference - pair.reference_first) / (pair.arm - pair.arm_first)) for pair in pairs]
    return float(np.median(logs))


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


def _hall(student: Array, skew: Array) -> Array:
    """Hall's statistic of Student's; with `skew` as in `Mean`."""
    return student + skew * student**2 + skew**2 * student**3 / 3 + skew / 2


def _student(hall: Array, skew: Array) -> Array:
    """Student's statistic of Hall's: ``(cbrt(1 + 3 a (T2 - a/2)) - 1) / a`` without the division by a."""
    distance = hall - skew / 2
    root = np.cbrt(1 + 3 * skew * distance)
    return 3 * distance / (root**2 + root + 1)


def _by_seed(values: pd.DataFrame | pd.Series) -> pd.DataFrame:
    return values.to_frame(ANY_SEED) if isinstance(values, pd.Series) else values


def _estimate(mean: Mean, data: Array, alpha: float) -> Estimate:
    low, high = (float(end) for end in mean.interval(alpha))
    known = math.isfinite(low) and math.isfinite(high)
    return Estimate(
        value=float(mean.value),
        low=low if known else None,
        high=high if known else None,
        n=len(data),
        sd=float(data.std(ddof=1)) if len(data) > 1 else None,
    )
