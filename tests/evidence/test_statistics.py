"""Statistics on data with known answers."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, stats

from ablations.evidence.statistics import (
    ANY_SEED,
    UNDEFINED,
    compare,
    crossed_mean,
    differences,
    estimate,
    log_noise,
    log_speedup,
    median_seconds,
    pooled,
    sample_mean,
    seed_variance,
    skewness,
    stacked,
)

LEVELS = st.floats(1e-5, 0.5)
VALUES = st.integers(3, 40).flatmap(lambda n: arrays(float, n, elements=st.floats(-100, 100)))


def spread(values: np.ndarray) -> np.ndarray:
    """The values, where they are not all but equal."""
    assume(np.ptp(values) > 1e-3)
    return values


class Pair:
    def __init__(self, arm: float, reference: float, again: float | None = None) -> None:
        self.arm, self.reference, self.again = arm, reference, again


def test_a_round_that_the_machine_disturbed_does_not_count():
    undisturbed = [Pair(1.0, 2.0), Pair(2.0, 4.2)]
    assert math.exp(log_speedup([*undisturbed, Pair(50.0, 2.0)])) == pytest.approx(2.0)
    assert median_seconds([1.0, 50.0, 2.0]) == 2.0


def test_of_two_rounds_the_log_speedup_is_the_mean_of_logs():
    assert math.exp(log_speedup([Pair(1.0, 2.0), Pair(1.0, 8.0)])) == pytest.approx(4.0)
    assert median_seconds([1.0, 2.0]) == 1.5


def test_noise_is_the_speedup_of_the_reference_over_itself():
    pairs = [Pair(1.0, 2.0, 2.2), Pair(1.0, 3.0, 3.0), Pair(1.0, 2.0, 1.0), Pair(9.0, 9.0)]
    assert log_noise(pairs) == pytest.approx(0.0)
    assert log_noise([Pair(2.0, 2.0), Pair(1.0, 1.0, None)]) is None


def test_of_data_without_skew_interval_and_p_are_students():
    half = np.random.default_rng(5).normal(0.4, 1.0, 10)
    values = np.concatenate([half, 2 * half.mean() - half])
    mean = sample_mean(values)
    expected = stats.t.interval(0.99, 19, values.mean(), values.std(ddof=1) / math.sqrt(20))
    assert mean.interval(0.01) == pytest.approx(expected)
    assert mean.p(0.1) == pytest.approx(stats.ttest_1samp(values, 0.1).pvalue)


def hall(values: np.ndarray, cut: float) -> float:
    """Hall's statistic as Hall (1992) writes it."""
    n, g = len(values), float(stats.skew(values, bias=False))
    w = (values.mean() - cut) / values.std(ddof=1)
    return math.sqrt(n) * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("n", "alpha"), [(9, 0.05), (40, 0.05), (60, 0.05 / 26)])
def test_of_skewed_data_each_end_is_the_outer_one_of_students_and_halls(n, alpha, sign):
    values = sign * np.random.default_rng(n).exponential(1.0, n)
    quantile = stats.t.ppf(1 - alpha / 2, n - 1)
    student = stats.t.interval(1 - alpha, n - 1, values.mean(), values.std(ddof=1) / math.sqrt(n))
    halls = [
        optimize.brentq(lambda cut, end=end: hall(values, cut) - end, -50, 50, xtol=1e-12)
        for end in (quantile, -quantile)
    ]
    low, high = sample_mean(values).interval(alpha)
    assert low == pytest.approx(min(student[0], halls[0]))
    assert high == pytest.approx(max(student[1], halls[1]))
    # Hall's leans to the long tail, so that either end is another's.
    assert (low == pytest.approx(student[0])) == (sign > 0)
    assert (high == pytest.approx(student[1])) == (sign < 0)


@pytest.mark.parametrize("cut", [-0.5, 0.2, 0.6, 1.0, 2.5])
def test_p_is_the_larger_one_and_1_where_the_signs_differ(cut):
    values = np.random.default_rng(3).exponential(1.0, 12)
    student = float(stats.ttest_1samp(values, cut).statistic)
    halls = hall(values, cut)
    p = max(2 * stats.t.sf(abs(statistic), 11) for statistic in (student, halls))
    assert sample_mean(values).p(cut) == pytest.approx(p if student * halls > 0 else 1.0)


def test_the_signs_of_students_and_halls_differ_between_their_centres():
    values = np.random.default_rng(3).exponential(1.0, 12)
    centre = optimize.brentq(lambda cut: hall(values, cut), -50, 50)
    assert sample_mean(values).p((centre + values.mean()) / 2) == 1.0


@settings(deadline=None)
@given(VALUES, LEVELS)
def test_an_end_of_an_interval_has_the_p_of_its_level(values, alpha):
    mean = sample_mean(spread(values))
    for end in mean.interval(alpha):
        assert mean.p(end) == pytest.approx(alpha, rel=1e-6)


@settings(deadline=None)
@given(VALUES)
def test_p_falls_away_from_the_mean(values):
    mean = sample_mean(spread(values))
    low, high = mean.interval(0.9)
    steps = np.ptp(values) * np.linspace(0, 3, 50)
    assert (np.diff([mean.p(high + step) for step in steps]) <= 1e-12).all()
    assert (np.diff([mean.p(low - step) for step in steps]) <= 1e-12).all()


@settings(deadline=None)
@given(VALUES, LEVELS, st.floats(0.1, 10), st.floats(-10, 10), st.randoms())
def test_an_interval_follows_its_data(values, alpha, scale, shift, random):
    low, high = sample_mean(spread(values)).interval(alpha)
    order = random.sample(range(len(values)), len(values))
    moved = sample_mean(-scale * values[order] + shift).interval(alpha)
    assert moved == pytest.approx((shift - scale * high, shift - scale * low), rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(VALUES)
def test_skewness_is_the_bias_corrected_one(values):
    assert skewness(spread(values)) == pytest.approx(stats.skew(values, bias=False), rel=1e-6, abs=1e-8)


def test_of_two_values_there_is_no_skewness():
    assert skewness(np.array([1.0, 5.0])) == 0.0
    assert sample_mean(np.array([1.0, 3.0])).interval(0.05) == pytest.approx(stats.t.interval(0.95, 1, 2, 1))


def coverage(values: np.ndarray, mean: float, alpha: float) -> float:
    """Share of simulated studies, one in each row, whose interval contains the true mean."""
    low, high = sample_mean(values).interval(alpha)
    return float(((low <= mean) & (mean <= high)).mean())


# Prompts of decoding, and documents of confirmatory rows.
@pytest.mark.parametrize("n", [3, 9, 20, 60])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n):
    values = np.random.default_rng(n).normal(0.3, 1.0, (20000, n))
    assert 0.945 <= coverage(values, 0.3, 0.05) <= 0.97
    assert 0.9935 <= coverage(values, 0.3, 0.005) <= 0.9985


@pytest.mark.parametrize("n", [40, 60])
def test_intervals_of_skewed_data_cover_too(n):
    # Skewness 1.3, as of differences of KL divergence; Student's own misses one tail.
    values = np.random.default_rng(n).gamma(2.37, 1.0, (20000, n))
    assert 0.94 <= coverage(values, 2.37, 0.05) <= 0.96
    assert 0.992 <= coverage(values, 2.37, 0.005) <= 0.997


def test_equal_differences_define_no_interval_and_decide_nothing():
    result = estimate(pd.Series([0.25] * 8), 0.05)
    assert (result.value, result.low, result.high) == (0.25, None, None)
    assert result.sd == pytest.approx(0.0)
    assert sample_mean(np.full(8, 0.25)).p(0.0) == 1.0
    assert sample_mean(np.full(8, 0.25)).p(10.0) == 1.0


def test_differences_that_are_all_zero_are_known_to_be_zero():
    result = estimate(pd.Series([0.0, 1e-16, -1e-16]), 0.05)
    assert (result.value, result.low, result.high) == (0.0, 0.0, 0.0)
    mean = sample_mean(np.zeros(5))
    assert mean.p(0.0) == 1.0
    assert mean.p(0.01) == mean.p(-0.01) == 0.0


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_one_document_has_no_interval(value):
    result = estimate(pd.Series([value]), 0.05)
    assert (result.value, result.low, result.high, result.sd) == (value, None, None, None)
    assert sample_mean(np.array([value])).p(3.0) == 1.0


def test_an_undefined_mean_decides_nothing():
    assert UNDEFINED.p(0.0) == 1.0
    assert UNDEFINED.interval(0.05) == (-math.inf, math.inf)


def test_means_stand_side_by_side_whatever_the_estimates_of_their_variance():
    rng = np.random.default_rng(0)
    plain, crossed = rng.normal(size=(7, 12)), rng.normal(size=(7, 12, 3))
    means = [sample_mean(plain), crossed_mean(crossed, pooled([np.full(7, 0.3)] * 3, 3)), sample_mean(plain)]
    low, high = stacked(means).interval(0.01)
    for place, mean in enumerate(means):
        assert (low[:, place], high[:, place]) == tuple(pytest.approx(end) for end in mean.interval(0.01))
        assert stacked(means).p(0.1)[:, place] == pytest.approx(mean.p(0.1))


def two_way(values: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of documents, seeds and rest of a two-way layout, as a textbook sums them."""
    documents, seeds = values.shape
    grand = values.sum() / values.size
    rows = [values[d].sum() / seeds for d in range(documents)]
    columns = [values[:, s].sum() / documents for s in range(seeds)]
    ss_rows = sum(seeds * (row - grand) ** 2 for row in rows)
    ss_columns = sum(documents * (column - grand) ** 2 for column in columns)
    ss_rest = sum(
        (values[d, s] - rows[d] - columns[s] + grand) ** 2 for d in range(documents) for s in range(seeds)
    )
    return ss_rows / (documents - 1), ss_columns / (seeds - 1), ss_rest / ((documents - 1) * (seeds - 1))


# Trainings that differ much, a little, and by less than chance.
@pytest.mark.parametrize("seed_sd", [1.0, 0.1, 0.0])
def test_the_error_over_documents_and_seeds_is_the_crossed_designs(seed_sd):
    rng = np.random.default_rng(1)
    documents, seeds = 12, 3
    values = rng.exponential(1.0, (documents, 1)) + rng.normal(0, 0.3, (documents, seeds))
    values += seed_sd * rng.normal(size=seeds)
    ms_d, ms_s, ms_e = two_way(values)
    variance = max(ms_d, ms_d + ms_s - ms_e) / (documents * seeds)
    df = (documents * seeds * variance) ** 2 / (
        ms_d**2 / (documents - 1) + ms_s**2 / (seeds - 1) + ms_e**2 / ((documents - 1) * (seeds - 1))
    )
    mean = crossed_mean(values)
    assert mean.value == pytest.approx(values.mean())
    assert mean.error[0] == pytest.approx(math.sqrt(variance))
    assert mean.df[0] == pytest.approx(min(max(df, 2.0), documents - 1))
    share = ms_d / (documents * seeds) / variance
    g = stats.skew(values.mean(axis=1), bias=False) * share**1.5
    assert mean.skew[0] == pytest.approx(g / (3 * math.sqrt(documents)))


def test_rows_with_one_comparator_tell_together_how_trainings_differ():
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(20, 1)) + rng.normal(size=3) + rng.normal(size=(20, 3)) for _ in range(3)]
    pool = pooled([seed_variance(row) for row in rows], 3)
    assert 20 * pool.variance == pytest.approx(np.mean([two_way(row)[1] for row in rows]))
    assert pool.df == pytest.approx(2 * 3 / (1 + 2 / 4))
    ms_d, _, ms_e = two_way(rows[0])
    total = max(ms_d, ms_d + 20 * pool.variance - ms_e)
    mean = crossed_mean(rows[0], pool)
    assert mean.error[1] == pytest.approx(math.sqrt(total / 60))
    assert mean.error[0] == pytest.approx(crossed_mean(rows[0]).error[0])


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 26])
def test_of_own_and_pooled_variance_the_wider_interval_counts(alpha):
    rng = np.random.default_rng(3)
    for factor in (0.01, 100.0):
        values = rng.normal(size=(20, 1)) + 0.5 * rng.normal(size=3) + rng.normal(size=(20, 3))
        own = crossed_mean(values).interval(alpha)
        low, high = crossed_mean(values, pooled([factor * seed_variance(values)], 3)).interval(alpha)
        assert low <= own[0]
        assert own[1] <= high
        assert (low < own[0]) == (factor > 1)


def test_trainings_that_agree_leave_the_interval_over_documents():
    documents = np.random.default_rng(4).exponential(1.0, 30)
    values = np.repeat(documents[:, None], 3, axis=1)
    assert crossed_mean(values).interval(0.01) == pytest.approx(sample_mean(documents).interval(0.01))
    assert crossed_mean(values[:, :1]).interval(0.01) == pytest.approx(sample_mean(documents).interval(0.01))


def test_intervals_over_documents_and_seeds_cover_what_those_over_documents_miss():
    rng = np.random.default_rng(5)
    sizes = (4000, 60, 3)
    rows = [
        rng.normal(0, 0.06, (4000, 60, 1)) + rng.normal(0, 0.01, (4000, 1, 3)) + rng.normal(0, 0.04, sizes)
        for _ in range(3)
    ]
    pool = pooled([seed_variance(row) for row in rows], 3)
    hits = {}
    for name, mean in {
        "documents": sample_mean(rows[0].mean(axis=-1)),
        "own": crossed_mean(rows[0]),
        "wider": crossed_mean(rows[0], pool),
    }.items():
        low, high = mean.interval(0.05)
        hits[name] = ((low <= 0) & (high >= 0)).mean()
    assert hits["documents"] < 0.92
    assert 0.94 <= hits["own"] <= 0.97
    assert hits["own"] <= hits["wider"] <= 0.98


def table(rows: dict[str, list[float]], seeds: tuple = (ANY_SEED,)) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(seeds))


def test_documents_of_one_side_only_are_dropped_and_counted():
    arm, versus = table({"c": [3.0], "a": [1.0], "x": [99.0]}), table({"a": [0.0], "b": [50.0], "c": [1.0]})
    result = compare(arm, versus, 0.05, names=("A", "B"), measure="text")
    assert result.estimate.n == 2
    assert result.estimate.value == pytest.approx(1.5)
    assert result.unpaired == 2
    assert list(differences(arm, versus).index) == ["c", "a"]


def test_arms_without_a_shared_document_or_training_have_no_comparison():
    arm = table({"a": [1.0, 2.0]}, (0, 1))
    for versus in (table({"b": [1.0]}), table({"a": [1.0]}, (2,))):
        assert compare(arm, versus, 0.05, names=("A", "B"), measure="text") is None


def test_without_another_arm_the_comparison_is_with_the_reference():
    result = compare(
        pd.Series({"a": 1.0, "b": 2.0, "c": 6.0}), None, 0.05, names=("A", None), measure="speed"
    )
    assert result.estimate.value == pytest.approx(3.0)
    assert (result.unpaired, result.seeds, result.these_trainings) == (0, 1, None)
    assert result.p == pytest.approx(float(sample_mean(np.array([1.0, 2.0, 6.0])).p(0.0)))


def test_trainings_are_paired_by_seed():
    trained = table({"a": [1.0, 2.0, 3.0], "b": [5.0, 7.0, 9.0]}, (0, 1, 2))
    single = table({"a": [10.0], "b": [20.0]}, (1,))
    assert differences(single, trained).to_dict("list") == {1: [8.0, 13.0]}
    untrained = table({"a": [10.0], "b": [20.0]})
    expected = [[9.0, 8.0, 7.0], [15.0, 13.0, 11.0]]
    assert differences(untrained, trained).to_numpy().tolist() == expected
    assert (-differences(trained, untrained)).to_numpy().tolist() == expected


def test_several_trainings_have_an_interval_for_them_alone_beside_the_other():
    rng = np.random.default_rng(6)
    arm = pd.DataFrame(rng.normal(1, 0.1, (20, 1)) + np.array([0.3, 0.0, -0.3]), columns=[0, 1, 2])
    result = compare(arm, pd.Series(np.zeros(20)), 0.05, names=("A", "B"), measure="text")
    alone = estimate(arm.mean(axis=1), 0.05)
    assert result.seeds == 3
    assert result.these_trainings == pytest.approx((alone.low, alone.high))
    assert result.estimate.low < alone.low < alone.high < result.estimate.high
    assert result.estimate.sd == pytest.approx(alone.sd)


def test_pairing_removes_what_documents_share():
    rng = np.random.default_rng(4)
    documents = pd.Series(rng.normal(0, 5, 32))
    arm = documents + 0.1 + rng.normal(0, 0.02, 32)
    result = compare(arm, documents, 0.05, names=("A", "B"), measure="text")
    assert result.estimate.low > 0.08
    assert result.p < 1e-6
