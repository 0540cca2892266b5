"""Statistics on data with known answers."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.evidence.statistics import (
    Resampling,
    bootstrap_level,
    compare,
    estimate,
    holm,
    log_noise,
    log_speedup,
    median_seconds,
    minimum_detectable_effect,
    paired_p,
)

RESAMPLING = Resampling(alpha=0.05, resamples=999, seed=0)


class Pair:
    def __init__(self, arm: float, reference: float, again: float | None = None) -> None:
        self.arm, self.reference, self.again = arm, reference, again


def compare_quality(arm: pd.Series, versus: pd.Series | None):
    return compare(arm, versus, RESAMPLING, names=("A", "B"), measure="quality")


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


def coverage(sample, mean: float, repetitions: int) -> float:
    """Share of simulated studies whose interval contains the true mean."""
    results = (estimate(pd.Series(sample()), RESAMPLING) for _ in range(repetitions))
    return float(np.mean([result.low <= mean <= result.high for result in results]))


# Documents of decoding's slowest row, of prefill's timing, and of quality.
@pytest.mark.parametrize("n", [4, 5, 6, 16, 20, 24, 32])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    assert 0.93 <= coverage(lambda: rng.normal(0.3, 1.0, n), 0.3, 1500) <= 0.97


@pytest.mark.parametrize("n", [5, 24])
def test_intervals_of_moderately_skewed_data_cover_too(n):
    # Skewness 0.95, as of a log-normal time whose spread is 30 %.
    rng = np.random.default_rng(n)
    assert 0.93 <= coverage(lambda: rng.lognormal(0, 0.3, n), math.exp(0.045), 1500) <= 0.97


def test_an_unadjusted_bootstrap_would_fail_this_test():
    rng = np.random.default_rng(4)
    data = rng.normal(0.3, 1.0, (400, 4))
    interval = stats.bootstrap(
        (data,), np.mean, axis=-1, n_resamples=199, method="BCa", rng=rng
    ).confidence_interval
    assert ((interval.low <= 0.3) & (interval.high >= 0.3)).mean() < 0.9


def test_few_documents_have_the_interval_that_goes_with_the_test():
    data = pd.Series(np.random.default_rng(8).normal(0.0, 1.0, 6))
    expected = stats.t.interval(0.95, 5, data.mean(), data.std() / math.sqrt(6))
    result = estimate(data, RESAMPLING)
    assert (result.low, result.high) == pytest.approx(expected)
    # A mean that an interval just touches has the p-value that the interval's level says.
    assert paired_p(data - result.low) == pytest.approx(0.05)


def test_the_level_of_a_bootstrap_falls_back_to_the_stated_one_on_much_data():
    assert bootstrap_level(0.05, 24) == pytest.approx(0.9653, abs=5e-4)
    assert bootstrap_level(0.05, 10**6) == pytest.approx(0.95, abs=1e-5)


def test_interval_agrees_with_theory_on_much_data():
    data = pd.Series(np.random.default_rng(1).normal(0.0, 1.0, 400))
    result = estimate(data, RESAMPLING)
    expected = stats.t.interval(0.95, 399, data.mean(), data.std() / 20)
    assert (result.low, result.high) == pytest.approx(expected, abs=0.015)


def test_interval_of_skewed_data_leans_to_the_long_tail():
    result = estimate(pd.Series(np.random.default_rng(2).exponential(1.0, 30)), RESAMPLING)
    assert result.high - result.value > result.value - result.low


def test_the_same_data_give_the_same_interval():
    data = pd.Series(np.random.default_rng(3).normal(size=12))
    assert estimate(data, RESAMPLING) == estimate(data, RESAMPLING)


def test_equal_differences_have_a_point_for_an_interval():
    arm = pd.Series(np.arange(8) + 0.25, index=list("abcdefgh"))
    versus = pd.Series(np.arange(8) * 1.0, index=list("abcdefgh"))
    result = compare_quality(arm, versus)
    assert (result.estimate.low, result.estimate.value, result.estimate.high) == (0.25, 0.25, 0.25)
    assert result.p == 2.0**-7
    assert result.mde == 0.0


def test_no_difference_at_all_is_no_evidence():
    values = pd.Series([1.0, 2.0, 3.0], index=list("abc"))
    result = compare_quality(values, values)
    assert result.estimate.value == 0.0
    assert result.p == 1.0


def test_one_document_has_no_interval_and_no_detectable_effect():
    result = compare_quality(pd.Series({"a": 1.0}), pd.Series({"a": 0.5}))
    assert result.estimate.value == 0.5
    assert result.estimate.low is None
    assert result.estimate.sd is None
    assert result.mde is None
    assert result.p == 1.0


def test_documents_of_one_side_only_are_dropped_and_counted():
    arm = pd.Series({"c": 3.0, "a": 1.0, "x": 99.0})
    versus = pd.Series({"a": 0.0, "b": 50.0, "c": 1.0})
    result = compare_quality(arm, versus)
    assert result.estimate.n == 2
    assert result.estimate.value == pytest.approx(1.5)
    assert result.unpaired == 2


def test_arms_without_a_shared_document_have_no_comparison():
    assert compare_quality(pd.Series({"a": 1.0}), pd.Series({"b": 1.0})) is None


def test_without_another_arm_the_comparison_is_with_the_reference():
    result = compare_quality(pd.Series({"a": 1.0, "b": 2.0, "c": 6.0}), None)
    assert result.estimate.value == pytest.approx(3.0)
    assert result.unpaired == 0


def test_pairing_removes_what_documents_share():
    rng = np.random.default_rng(4)
    documents = pd.Series(rng.normal(0, 5, 32))
    result = compare_quality(documents + 0.1 + rng.normal(0, 0.02, 32), documents)
    assert result.estimate.low > 0.08
    assert result.p < 1e-6


def test_p_is_that_of_the_paired_t_test():
    data = pd.Series(np.random.default_rng(5).normal(0.2, 1.0, 20))
    assert paired_p(data) == pytest.approx(stats.ttest_1samp(data, 0).pvalue)


def test_holm_matches_a_worked_example():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_holm_of_one_changes_nothing_and_never_exceeds_one():
    assert holm({"a": 0.3}) == {"a": 0.3}
    assert max(holm({"a": 0.9, "b": 0.8}).values()) == 1.0


def test_the_detectable_effect_is_found_with_the_stated_power():
    n, deviation = 24, 0.15
    effect = minimum_detectable_effect(deviation, n, 0.05)
    rng = np.random.default_rng(6)
    data = rng.normal(effect, deviation, (4000, n))
    power = (stats.ttest_1samp(data, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_the_interval_of_a_spread_covers_equality():
    rng = np.random.default_rng(9)
    hits = []
    for _ in range(300):
        shared = rng.normal(0, 0.7, 24)
        arm, versus = (pd.Series(shared + rng.normal(0, 0.7, 24)) for _ in range(2))
        spread = compare_quality(arm, versus).log_spread
        hits.append(spread.low <= 0 <= spread.high)
    assert 0.92 <= np.mean(hits) <= 0.97


def test_too_few_documents_have_no_spread():
    rng = np.random.default_rng(10)
    arm, versus = (pd.Series(rng.normal(size=7)) for _ in range(2))
    assert compare_quality(arm, versus).log_spread is None


def test_log_spread_sees_an_arm_that_varies_more():
    rng = np.random.default_rng(7)
    calm, wild = pd.Series(rng.normal(0, 0.1, 40)), pd.Series(rng.normal(0, 1.0, 40))
    result = compare_quality(wild, calm)
    assert result.log_spread.low > 0
    assert result.log_spread.value == pytest.approx(math.log(wild.std() / calm.std()))
