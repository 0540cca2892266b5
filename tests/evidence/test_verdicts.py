"""Verdicts: where an interval must lie for each prediction."""

import math

import pytest

from ablations.evidence.expectations import Expectation, Experiment, Thresholds
from ablations.evidence.statistics import Comparison, Estimate
from ablations.evidence.verdicts import combine, judge, judge_experiment, judge_ranking

THRESHOLDS = Thresholds()


def comparison(low, high, *, measure="quality", p=0.001, spread=None):
    middle = None if low is None else (low + high) / 2
    log_spread = spread and Estimate(value=sum(spread) / 2, low=spread[0], high=spread[1], n=24, sd=None)
    return Comparison(
        arm="A",
        versus="baseline",
        measure=measure,
        estimate=Estimate(value=middle or 0.0, low=low, high=high, n=24, sd=0.1),
        unpaired=0,
        p=p,
        p_adjusted=p,
        mde=0.06,
        log_spread=log_spread,
    )


# NLL: a rise is a loss of quality. Margins: same 0.05, strong 0.3.
QUALITY = [
    ("same", -0.04, 0.05, "supported", "inside_margin"),
    ("same", 0.06, 0.10, "contradicted", "outside_margin"),
    ("same", -0.10, -0.06, "contradicted", "outside_margin"),
    ("same", 0.02, 0.10, "inconclusive", "across_margin"),
    ("same", -0.20, 0.20, "inconclusive", "across_margin"),
    ("down", 0.02, 0.20, "supported", "right_side"),
    ("down", -0.02, 0.20, "inconclusive", "across_zero"),
    ("down", -0.20, -0.02, "contradicted", "other_side"),
    ("down", 0.01, 0.04, "contradicted", "inside_margin"),
    ("up", -0.20, -0.02, "supported", "right_side"),
    ("up", 0.02, 0.20, "contradicted", "other_side"),
    ("up", -0.20, 0.02, "inconclusive", "across_zero"),
    ("down_strong", 0.31, 0.50, "supported", "beyond_strong"),
    ("down_strong", 0.20, 0.50, "inconclusive", "across_strong"),
    ("down_strong", 0.10, 0.29, "contradicted", "short_of_strong"),
    ("down_strong", -0.10, 0.50, "inconclusive", "across_zero"),
    ("down_strong", -0.50, -0.31, "contradicted", "other_side"),
    ("up_strong", -0.50, -0.31, "supported", "beyond_strong"),
    ("crash", 0.0, 0.1, "contradicted", "no_crash"),
]


@pytest.mark.parametrize(("level", "low", "high", "verdict", "reason"), QUALITY)
def test_quality(level, low, high, verdict, reason):
    assert judge(level, comparison(low, high), THRESHOLDS) == (verdict, reason)


@pytest.mark.parametrize(("level", "low", "high", "verdict", "reason"), QUALITY)
def test_speed_is_the_mirror_image_on_its_own_scale(level, low, high, verdict, reason):
    # Map the quality margins onto the speed margins; a rise of the log speed-up is a gain.
    scale = {0.05: math.log(1.05), 0.3: math.log(1.5)}

    def mapped(value):
        size = abs(value)
        inner = size / 0.05 * scale[0.05] if size <= 0.05 else None
        outer = scale[0.05] + (size - 0.05) / 0.25 * (scale[0.3] - scale[0.05])
        return math.copysign(outer if inner is None else inner * (1 - 1e-12), -value) if value else 0.0

    speed = comparison(mapped(high), mapped(low), measure="speed")
    assert judge(level, speed, THRESHOLDS) == (verdict, reason)


@pytest.mark.parametrize("level", ["up", "down_strong", "up_strong", "down"])
def test_an_interval_without_significance_after_holm_supports_nothing(level):
    sign = 1 if level.startswith("down") else -1
    low, high = sorted((sign * 0.35, sign * 0.6))
    assert judge(level, comparison(low, high, p=0.2), THRESHOLDS) == ("inconclusive", "not_significant")


@pytest.mark.parametrize(("level", "sign"), [("down", 1), ("up", -1)])
def test_an_insignificant_interval_says_on_which_side_of_the_expectation_it_lies(level, sign):
    expected, opposite = sorted((sign * 0.31, sign * 0.5)), sorted((-sign * 0.31, -sign * 0.5))
    assert judge(level, comparison(*expected, p=0.2), THRESHOLDS)[1] == "not_significant"
    assert judge(level, comparison(*opposite, p=0.2), THRESHOLDS)[1] == "other_side_not_significant"


@pytest.mark.parametrize(("low", "high"), [(-0.03, 0.01), (-0.03, -0.01)])
def test_an_interval_within_the_margin_contradicts_on_either_side_of_zero(low, high):
    assert judge("down", comparison(low, high, p=0.2), THRESHOLDS) == ("contradicted", "inside_margin")


def test_an_interval_short_of_strong_contradicts_on_either_side_of_zero():
    verdicts = {
        judge("down_strong", comparison(low, high, p=0.2), THRESHOLDS)
        for low, high in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1))
    }
    assert verdicts == {("contradicted", "short_of_strong")}


def test_no_interval_is_inconclusive_and_no_comparison_is_untested():
    assert judge("down", comparison(None, None), THRESHOLDS) == ("inconclusive", "no_interval")
    assert judge("down", None, THRESHOLDS) == ("not_tested", "no_comparison")


@pytest.mark.parametrize(
    ("spread", "verdict"),
    [
        ((0.2, 0.9), "supported"),
        ((-0.9, -0.2), "contradicted"),
        ((-0.2, 0.4), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_unstable_is_about_the_spread(spread, verdict):
    assert judge("unstable", comparison(0.1, 0.2, spread=spread), THRESHOLDS)[0] == verdict


def experiment(**expect):
    return Experiment(
        id="A",
        method="sdtp",
        title="A",
        section="ratio",
        change={},
        expect=Expectation(**expect),
        versus="baseline",
        records=("A.json",),
    )


def clauses(expect, status="ok", exact=None, traffic=None):
    return judge_experiment(
        experiment(**expect),
        status,
        lambda against, endpoint: None,
        THRESHOLDS,
        exact=exact,
        traffic=traffic or {},
    )


def test_a_crash_supports_only_what_foresaw_trouble():
    expect = {"quality": "crash", "speed": "down"}
    assert [clause.verdict for clause in clauses(expect, "crashed")] == ["supported", "not_tested"]
    assert [clause.verdict for clause in clauses({"quality": "unstable"}, "crashed")] == ["supported"]


def test_what_did_not_run_is_not_tested():
    (clause,) = clauses({"quality": "same"}, "not_run")
    assert (clause.verdict, clause.reason) == ("not_tested", "not_run")


@pytest.mark.parametrize(
    ("exact", "level", "verdict"),
    [
        (True, "same", "supported"),
        (True, "down", "contradicted"),
        (False, "same", "contradicted"),
        (False, "down", "inconclusive"),
    ],
)
def test_exactness_is_the_quality_of_decoding(exact, level, verdict):
    assert clauses({"quality": level}, exact=exact)[0].verdict == verdict


def test_orderings_are_judged_against_the_named_experiments():
    compared = []

    def compare(against, endpoint):
        compared.append((against, endpoint))
        return comparison(0.1, 0.2, measure="speed")

    orderings = experiment(above=("X",), below=("Y",), about=("Z",))
    judged = judge_experiment(orderings, "ok", compare, THRESHOLDS, traffic={})
    assert compared == [("X", "speed"), ("Y", "speed"), ("Z", "speed")]
    assert [clause.verdict for clause in judged] == ["supported", "contradicted", "contradicted"]


@pytest.mark.parametrize(
    ("traffic", "verdict", "reason"),
    [
        ({"A": 1000.0, "G2": 1001.0}, "supported", "fewer_bytes"),
        ({"A": 1000.0, "G2": 1000.0}, "contradicted", "no_fewer_bytes"),
        ({"A": 1001.0, "G2": 1000.0}, "contradicted", "no_fewer_bytes"),
        ({"A": 1000.0}, "not_tested", "no_bytes"),
        ({"G2": 1000.0}, "not_tested", "no_bytes"),
    ],
)
def test_traffic_is_counted_not_estimated(traffic, verdict, reason):
    (clause,) = clauses({"less_traffic": ("G2",)}, traffic=traffic)
    assert (clause.aspect, clause.against) == ("less_traffic", "G2")
    assert (clause.verdict, clause.reason) == (verdict, reason)


def test_traffic_of_an_arm_that_crashed_is_not_tested():
    assert clauses({"less_traffic": ("G2",)}, "crashed")[0].verdict == "not_tested"


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (-0.3, -0.01, 0.01, "supported"),
        (-0.3, -0.01, 0.2, "inconclusive"),
        (-0.3, 0.01, 0.2, "inconclusive"),
        (0.01, 0.3, 0.01, "contradicted"),
        (None, None, 1.0, "inconclusive"),
    ],
)
def test_a_loss_improves_ranking_where_its_removal_worsens_it(low, high, p, verdict):
    assert judge_ranking(comparison(low, high, measure="ranking", p=p), THRESHOLDS)[0] == verdict


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "not_tested"),
        (["not_tested"], "not_tested"),
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "not_tested"], "inconclusive"),
        (["inconclusive", "contradicted", "supported"], "contradicted"),
        (["not_tested", "contradicted"], "contradicted"),
    ],
)
def test_combine(verdicts, expected):
    assert combine(verdicts) == expected
