"""The mean over many priced prompts, corrected by the few that were timed."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablations.evidence.corrected import FEW, corrected_estimate, corrected_mean
from ablations.evidence.effects import Effects
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.statistics import Array, Mean, sample_mean
from tests.evidence.arms import decoding, study

STUDIES = 3000
KINDS, PRICED = ("code", "docs", "chat"), 20
OFTEN_DISTURBED, DISTURBANCE = 0.02, math.log(2)
"""How often a measured prompt takes twice as long, and what that does to its log speed-up."""


def named(**values) -> pd.Series:
    """Values of prompts by kind."""
    return pd.concat(
        [
            pd.Series(np.asarray(own, float), [f"{kind}/p{number}" for number in range(len(own))])
            for kind, own in values.items()
        ]
    )


def known(mean: Mean) -> tuple[float, float, float]:
    """Value, variance and degrees of freedom of a mean."""
    (error,), (df,), (skew,) = mean.error, mean.df, mean.skew
    assert skew == 0.0
    return float(mean.value), float(error) ** 2, float(df)


def satterthwaite(*terms: tuple[float, int]) -> float:
    """Degrees of freedom of a sum of variances, each with its own."""
    return sum(variance for variance, _ in terms) ** 2 / sum(variance**2 / df for variance, df in terms)


NOISE = np.array([0.1, -0.1] * 4)
LOW_AND_HIGH = np.repeat([0.0, 1.0], 4)


def test_of_many_timed_prompts_the_slope_is_that_within_kinds():
    # Timed: prices 0 and 2 in one kind, 1 and 5 in the other, and slopes of 1 and 1/4.
    prices = {"a": 2 * LOW_AND_HIGH, "b": 1 + 4 * LOW_AND_HIGH}
    measured = named(a=3 + prices["a"] + NOISE, b=-1 + prices["b"] / 4 + NOISE)
    priced = named(a=[*prices["a"], 3, 4], b=[*prices["b"], 8, 8])
    assert len(measured) >= FEW
    # Squares of prices about their means are 8 and 32, so that the common slope is (8 * 1 + 32 / 4) / 40.
    slope = 0.4
    # About that slope: noise of 8 * 0.01 in each kind, and what each kind's own slope leaves.
    rest = (0.08 + 0.6**2 * 8 + 0.08 + 0.15**2 * 32) / 13
    # Mean prices are 1 and 3 of the timed prompts, 1.5 and 4 of all.
    gap = (0.5 + 1.0) / 2
    of_timed = rest * ((1 / 8 + 1 / 8) / 4 + gap**2 / 40)
    # Squares of all prices about their means are 18.5 and 72, of ten prompts each.
    of_prices = [slope**2 / 4 * squares / 9 / 10 for squares in (18.5, 72.0)]
    value, variance, df = known(corrected_mean(measured, priced))
    assert value == pytest.approx((4 - 0.25) / 2 + slope * gap)
    assert variance == pytest.approx(of_timed + sum(of_prices))
    assert df == pytest.approx(satterthwaite((of_timed, 13), (of_prices[0], 9), (of_prices[1], 9)))


def test_of_few_timed_prompts_the_slope_is_1():
    measured, priced = named(a=[1.5, 3.1], b=[0.2, 2.3, 4.1]), named(a=[1, 3, 5, 7], b=[0, 2, 4, 6, 8])
    # Measured values minus prices are 0.5 and 0.1, and 0.2, 0.3 and 0.1.
    variance_of_rests = (2 * 0.2**2 + 2 * 0.1**2) / 3
    # They fall as prices rise: by 0.2 on either side of the mean where prices rise by 1, by 0.1 where by 2.
    covariance = (-0.2 * 1 - 0.2 * 1 - 0.1 * 2) / 3
    of_timed = variance_of_rests * (1 / 2 + 1 / 3) / 4
    # Variances of the mean prices are 20/3 / 4 and 10 / 5.
    of_prices = [20 / 12 / 4, 2 / 4]
    value, variance, df = known(corrected_mean(measured, priced))
    assert value == pytest.approx((4 + 0.3 + 4 + 0.2) / 2)
    assert variance == pytest.approx(of_timed + sum(of_prices) + 2 * covariance * (1 / 4 + 1 / 5) / 4)
    assert df == pytest.approx(satterthwaite((of_timed, 3), (of_prices[0], 3), (of_prices[1], 4)))


def test_a_covariance_does_not_take_away_the_variance_of_what_was_timed():
    # Measured values do not differ, prices do: the covariance is minus their variance of 2.
    measured, priced = named(a=[7, 7]), named(a=[1, 3, 1, 3, 1, 3, 1, 3])
    without_floor = 2 / 2 + 8 / 7 / 8 - 2 * 2 / 8
    assert without_floor < 2 / 2
    value, variance, _ = known(corrected_mean(measured, priced))
    assert (value, variance) == (pytest.approx(7.0), pytest.approx(2 / 2))


def test_the_method_changes_at_fifteen_timed_prompts():
    """With half the slope at 15 prompts, with a slope of 1 at 14."""
    prices = np.arange(15.0)
    priced = named(a=[*prices, 100])
    gap = float(priced.mean()) - 7.0
    at_15 = corrected_mean(named(a=prices / 2), priced)
    assert float(at_15.value) == pytest.approx(3.5 + gap / 2)
    at_14 = corrected_mean(named(a=prices[:14] / 2), priced)
    assert float(at_14.value) == pytest.approx(float(priced.mean()) - 3.25)


def test_kinds_weigh_the_same_however_many_prompts_they_have():
    measured = named(a=[1.0, 1.0], b=[4.0] * 20)
    priced = named(a=[1.0] * 30, b=[4.0] * 20)
    assert float(corrected_mean(measured, priced).value) == pytest.approx(2.5)


@pytest.mark.parametrize("few", [True, False])
def test_a_kind_without_a_timed_prompt_leaves_the_mean_undefined(few):
    own = np.random.default_rng(0).normal(0, 1, 3 if few else 20)
    mean = corrected_mean(named(a=own), named(a=own, b=[1.0, 2.0]))
    assert math.isnan(float(mean.value))
    assert mean.interval(0.05) == (-math.inf, math.inf)
    assert mean.p(0.0) == 1.0
    with_one = corrected_mean(named(a=own, b=[1.5]), named(a=own, b=[1.0, 2.0]))
    assert all(map(math.isfinite, with_one.interval(0.05)))


def test_single_timed_prompts_have_a_mean_without_an_interval():
    mean = corrected_mean(named(a=[1.5], b=[2.0]), named(a=[1.0, 2.0], b=[2.0, 3.0]))
    assert float(mean.value) == pytest.approx((1.5 + 0.5 + 2.5 + 0.0) / 2)
    assert (mean.interval(0.05), float(mean.p(0.0))) == ((-math.inf, math.inf), 1.0)
    found = corrected_estimate(mean, 4, 0.05)
    assert (found.value, found.low, found.high, found.sd, found.n) == (float(mean.value), None, None, None, 4)


def test_an_estimate_has_the_interval_of_its_mean():
    mean = corrected_mean(named(a=[1.5, 3.1, 2.0]), named(a=[1, 3, 2, 7, 8]))
    found = corrected_estimate(mean, 5, 0.1)
    assert (found.low, found.high) == pytest.approx(mean.interval(0.1))
    assert found.low < found.value < found.high
    assert (found.n, found.sd) == (5, pytest.approx(float(mean.error[0]) * math.sqrt(5)))


def test_without_any_difference_there_is_none():
    """Of an arm minus itself."""
    mean = corrected_mean(named(a=[0.0, 0.0]), named(a=[0.0] * 5))
    assert (float(mean.value), mean.interval(0.05)) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("timed", [2, 15, 20])
def test_perfect_prices_give_the_mean_price_as_if_all_were_timed(timed):
    every = np.random.default_rng(1).normal(0.5, 0.25, PRICED)
    mean = corrected_mean(named(a=every[:timed]), named(a=every))
    expected = stats.t.interval(0.95, PRICED - 1, every.mean(), stats.sem(every))
    assert float(mean.value) == pytest.approx(every.mean())
    assert mean.interval(0.05) == pytest.approx(expected)


@pytest.mark.parametrize("timed", [2, 6])
def test_perfect_prices_of_three_kinds_give_the_mean_of_their_mean_prices(timed):
    rng = np.random.default_rng(2)
    every = {kind: rng.normal(place, 0.25, PRICED) for place, kind in enumerate(KINDS)}
    value, variance, df = known(
        corrected_mean(named(**{kind: own[:timed] for kind, own in every.items()}), named(**every))
    )
    terms = [(stats.sem(own) ** 2 / 9, PRICED - 1) for own in every.values()]
    assert value == pytest.approx(np.mean([own.mean() for own in every.values()]))
    assert (variance, df) == (
        pytest.approx(sum(term for term, _ in terms)),
        pytest.approx(satterthwaite(*terms)),
    )


def test_prices_that_are_too_high_by_a_factor_are_corrected():
    every = np.random.default_rng(3).normal(0.5, 0.25, PRICED)
    mean = corrected_mean(named(a=0.3 + 0.8 * every[:15]), named(a=every))
    expected = sample_mean(0.3 + 0.8 * every)
    assert (float(mean.value), mean.error[0]) == (
        pytest.approx(expected.value),
        pytest.approx(expected.error[0]),
    )


def test_useless_prices_leave_what_was_measured():
    # Noise of either sign at either price: the slope is 0.
    measured = named(a=3 + np.tile(NOISE, 2))
    priced = named(a=[*np.tile(LOW_AND_HIGH, 2), 0.5, 0.5])
    alone = sample_mean(measured.to_numpy())
    value, variance, df = known(corrected_mean(measured, priced))
    # One degree of freedom went into the slope.
    assert (value, df) == (pytest.approx(float(alone.value)), pytest.approx(14))
    assert variance == pytest.approx(alone.error[0] ** 2 * 15 / 14)


def test_the_interval_of_useless_prices_is_about_as_wide_as_without_them():
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        measured = {kind: rng.normal(0, 0.2, 8) for kind in KINDS}
        priced = named(**{kind: rng.normal(0, 0.2, PRICED) for kind in KINDS})
        low, high = corrected_mean(named(**measured), priced).interval(0.05)
        squares = sum(((own - own.mean()) ** 2).sum() for own in measured.values())
        width = 2 * stats.t.ppf(0.975, 21) * math.sqrt(squares / 21 / 24)
        shares.append((high - low) / width)
    assert 1.0 < np.mean(shares) < 1.1


@st.composite
def timed_and_priced(draw) -> tuple[dict[str, Array], dict[str, Array]]:
    """Measured values of at least `FEW` prompts of up to four kinds, and prices of all prompts."""
    kinds = draw(st.integers(1, 4))
    counts = [draw(st.integers(1, 8)) for _ in range(kinds - 1)]
    counts.append(max(2, FEW - sum(counts)) + draw(st.integers(0, 5)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    priced = {
        f"k{place}": rng.exponential(1.0, n + draw(st.integers(0, 9))) for place, n in enumerate(counts)
    }
    measured = {
        kind: rng.normal(0, 1) + rng.normal(0, 1) * priced[kind][:n] + rng.normal(0, 0.3, n)
        for kind, n in zip(priced, counts, strict=True)
    }
    return measured, priced


@settings(deadline=None)
@given(timed_and_priced(), st.randoms())
def test_the_mean_is_what_a_regression_with_a_level_for_each_kind_predicts_at_the_mean_prices(drawn, random):
    measured, priced = drawn
    # Ordinary least squares: a column for each kind, and one of prices.
    design = np.concatenate(
        [
            np.column_stack([np.tile(np.eye(len(measured))[place], (len(own), 1)), priced[kind][: len(own)]])
            for place, (kind, own) in enumerate(measured.items())
        ]
    )
    values = np.concatenate(list(measured.values()))
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    df = len(values) - design.shape[1]
    rest = ((values - design @ coefficients) ** 2).sum() / df
    weight = 1 / len(measured)
    at = np.array([weight] * len(measured) + [weight * sum(own.mean() for own in priced.values())])
    terms = [(rest * at @ np.linalg.inv(design.T @ design) @ at, df)]
    terms += [
        (coefficients[-1] ** 2 * weight**2 * own.var(ddof=1) / len(own), len(own) - 1)
        for own in priced.values()
        if len(own) > 1
    ]
    every, timed = named(**priced), named(**measured)
    # In whatever order prompts stand.
    every, timed = (values.sample(frac=1, random_state=random.randrange(2**32)) for values in (every, timed))
    assert known(corrected_mean(timed, every)) == (
        pytest.approx(at @ coefficients),
        pytest.approx(sum(variance for variance, _ in terms)),
        pytest.approx(satterthwaite(*terms)),
    )


def simulated(
    rng: np.random.Generator, timed: int, sd: float, lean: int, slope: float
) -> tuple[pd.Series, pd.Series, float]:
    """A study of one arm: measured log speed-ups, prices, and the true effect.

    Args:
        rng: Chance.
        timed: Timed prompts of each kind.
        sd: Standard deviation of log speed-ups over prompts of a kind.
        lean: Side of the long tail, 1 or -1; the skewness is 1.3.
        slope: What a measured log speed-up rises by where its price rises by 1.
    """
    shape = 4 / 1.3**2
    levels = np.array([0.2, 0.5, 0.9])[:, None]
    of_prompts = lean * sd * (rng.gamma(shape, 1.0, (3, PRICED)) - shape) / math.sqrt(shape)
    wrong = np.array([0.05, -0.03, 0.1])[:, None]
    measured = levels + wrong + slope * of_prompts[:, :timed] + rng.normal(0, 0.02, (3, timed))
    measured -= DISTURBANCE * (rng.random((3, timed)) < OFTEN_DISTURBED)
    names = [[f"{kind}/p{number}" for number in range(PRICED)] for kind in KINDS]
    return (
        pd.Series(measured.ravel(), [name for own in names for name in own[:timed]]),
        pd.Series((levels + of_prompts).ravel(), [name for own in names for name in own]),
        float((levels + wrong).mean()),
    )


@pytest.mark.full
@pytest.mark.parametrize("slope", [1.0, 0.8])
@pytest.mark.parametrize("lean", [1, -1])
@pytest.mark.parametrize("sd", [0.2, 0.27])
@pytest.mark.parametrize("timed", [5, 2])
def test_intervals_cover_the_true_effect(timed, sd, lean, slope):
    """Prices are off by up to a tenth in each kind and, beyond their slope, by 2 % from prompt to prompt; one
    measured prompt in fifty takes twice as long, which is no part of the true effect.
    """
    rng = np.random.default_rng(6)
    below = above = 0
    for _ in range(STUDIES):
        measured, priced, truth = simulated(rng, timed, sd, lean, slope)
        low, high = corrected_mean(measured, priced).interval(0.05)
        below, above = below + (high < truth), above + (low > truth)
    covered = 1 - (below + above) / STUDIES
    print(f"{covered:.1%} covered; {below / STUDIES:.1%} lie below the truth, {above / STUDIES:.1%} above")
    assert 0.93 <= covered <= 0.97


def test_a_simulation_would_notice_prices_that_are_not_corrected():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(300):
        _, priced, truth = simulated(rng, 5, 0.2, 1, 1.0)
        low, high = corrected_mean(priced, priced).interval(0.05)
        covered += low < truth < high
    assert covered / 300 < 0.8


SETTINGS = PaperSettings()
OWN = {"code": [0.5, 0.7], "docs": [0.2, 0.45]}
OWN_PRICES = {"code": [0.6, 0.65, 0.9, 0.4], "docs": [0.2, 0.4, 0.1]}
OTHER = {"code": [0.1, 0.15], "docs": [0.05, 0.2]}
OTHER_PRICES = {"code": [0.12, 0.2, 0.3, 0.0], "docs": [0.1, 0.15, 0.05]}


def test_an_effect_of_a_priced_arm_is_its_corrected_mean():
    arms = study(decoding("F4", OWN, OWN_PRICES))
    expected = corrected_mean(named(**OWN), named(**OWN_PRICES))
    effects = Effects(arms, SETTINGS)
    mean, comparison = effects.mean("F4", None, "speed"), effects.comparison("F4", None, "speed")
    assert known(mean) == pytest.approx(known(expected))
    assert comparison.estimate.n == 7
    assert (comparison.estimate.low, comparison.estimate.high) == pytest.approx(expected.interval(0.05))
    assert comparison.p == pytest.approx(float(expected.p(0.0)))
    assert (comparison.arm, comparison.versus, comparison.seeds) == ("F4", None, 1)


def differences(own: dict, other: dict) -> pd.Series:
    return named(**own) - named(**other)


def test_an_effect_between_priced_arms_is_of_the_differences_of_each_prompt():
    arms = study(decoding("F4", OWN, OWN_PRICES), decoding("F2", OTHER, OTHER_PRICES))
    expected = corrected_mean(differences(OWN, OTHER), differences(OWN_PRICES, OTHER_PRICES))
    effects = Effects(arms, SETTINGS)
    assert known(effects.mean("F4", "F2", "speed")) == pytest.approx(known(expected))
    assert effects.comparison("F4", "F2", "speed").estimate.n == 7


def test_arms_of_unlike_prompts_are_compared_on_those_that_both_have():
    more = {"code": [*OTHER["code"], 0.4], "docs": OTHER["docs"]}
    prices = {"code": [*OTHER_PRICES["code"], 0.2, 0.3], "docs": OTHER_PRICES["docs"][:2]}
    arms = study(decoding("F4", OWN, OWN_PRICES), decoding("F2", more, prices))
    own_prices = {"code": OWN_PRICES["code"], "docs": OWN_PRICES["docs"][:2]}
    other_prices = {"code": OTHER_PRICES["code"], "docs": OTHER_PRICES["docs"][:2]}
    expected = corrected_mean(differences(OWN, OTHER), differences(own_prices, other_prices))
    effects = Effects(arms, SETTINGS)
    assert known(effects.mean("F4", "F2", "speed")) == pytest.approx(known(expected))
    assert effects.comparison("F4", "F2", "speed").estimate.n == 6


def test_autoregressive_decoding_has_the_price_of_itself():
    alone = decoding("F1", {"code": [0.0, 0.0], "docs": [0.0, 0.0]}, drafts=False)
    effects = Effects(study(decoding("F4", OWN, OWN_PRICES), alone), SETTINGS)
    mean = corrected_mean(named(**OWN), named(**OWN_PRICES))
    assert known(effects.mean("F4", "F1", "speed")) == pytest.approx(known(mean))
    value, *rest = known(effects.mean("F1", "F4", "speed"))
    assert (value, *rest) == pytest.approx((-known(mean)[0], *known(mean)[1:]))


def test_beside_an_arm_that_was_not_replayed_only_timed_prompts_count():
    arms = study(decoding("F4", OWN, OWN_PRICES), decoding("F2", OTHER))
    expected = sample_mean(differences(OWN, OTHER).to_numpy())
    effects = Effects(arms, SETTINGS)
    mean = effects.mean("F4", "F2", "speed")
    assert (mean.value, mean.error, mean.skew) == (
        pytest.approx(expected.value),
        pytest.approx(expected.error),
        pytest.approx(expected.skew),
    )
    assert effects.comparison("F4", "F2", "speed").estimate.n == 4


def test_priced_arms_of_different_devices_are_not_compared():
    other = decoding("F2", OTHER, OTHER_PRICES, device="Other GPU")
    effects = Effects(study(decoding("F4", OWN, OWN_PRICES), other), SETTINGS)
    assert effects.mean("F4", "F2", "speed") is None
    assert effects.comparison("F4", "F2", "speed") is None
