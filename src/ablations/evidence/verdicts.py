"""Verdicts on predictions, from the intervals of measured effects."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from ablations.core.contract import Contract, Identifier
from ablations.evidence.expectations import Expectation, Experiment, Level, Thresholds
from ablations.evidence.statistics import Comparison, Endpoint

OutcomeStatus = Literal["ok", "crashed", "not_run"]
Verdict = Literal["supported", "contradicted", "inconclusive", "not_tested"]
Aspect = Literal["quality", "speed", "above", "below", "about", "less_traffic"]
Reason = Literal[
    "inside_margin",
    "outside_margin",
    "across_margin",
    "right_side",
    "other_side",
    "across_zero",
    "not_significant",
    "other_side_not_significant",
    "beyond_strong",
    "short_of_strong",
    "across_strong",
    "no_interval",
    "crashed",
    "no_crash",
    "wider",
    "narrower",
    "similar_spread",
    "exact",
    "inexact",
    "fewer_bytes",
    "no_fewer_bytes",
    "no_bytes",
    "no_comparison",
    "not_run",
]


class Clause(Contract):
    """The verdict on one prediction of an experiment."""

    aspect: Aspect
    """What was predicted."""
    level: Level
    """Predicted effect; of an ordering `up` (above), `down` (below, less traffic) or `same` (about)."""
    against: Identifier | None
    """Experiment that the effect is measured against; null for the reference measured beside the arm."""
    verdict: Verdict
    """What the data say."""
    reason: Reason
    """Where the interval lies, or why there is none."""


Compare = Callable[[Identifier | None, Endpoint], Comparison | None]
"""Gives the comparison with an experiment (None: with the reference) on an endpoint."""

Traffic = Mapping[Identifier, float]
"""Mean bytes over all pipeline boundaries, by experiment."""


def judge(level: Level, comparison: Comparison | None, thresholds: Thresholds) -> tuple[Verdict, Reason]:
    """Verdict on a prediction about an arm that ran.

    `up` is a gain: the NLL falls, or the log speed-up rises.

    Args:
        level: Predicted effect.
        comparison: Measured effect; None where the other arm has no result.
        thresholds: Where `same` ends and `strong` begins.
    """
    if level == "crash":
        return "contradicted", "no_crash"
    if comparison is None:
        return "not_tested", "no_comparison"
    if level == "unstable":
        return _judge_spread(comparison)
    effect = comparison.estimate
    if effect.low is None or effect.high is None:
        return "inconclusive", "no_interval"
    quality = comparison.measure == "quality"
    same = thresholds.quality_same if quality else float(np.log(thresholds.speed_same))
    strong = thresholds.quality_strong if quality else float(np.log(thresholds.speed_strong))
    low, high = (-effect.high, -effect.low) if quality else (effect.low, effect.high)
    if level == "same":
        return _judge_same(low, high, same)
    if level.startswith("down"):
        low, high = -high, -low
    significant = comparison.p_adjusted <= thresholds.alpha
    return _judge_rise(low, high, same, strong if level.endswith("strong") else None, significant)


def judge_ranking(comparison: Comparison, thresholds: Thresholds) -> tuple[Verdict, Reason]:
    """Verdict on the prediction that the arm ranks worse than the other arm; the margin of `same` is zero."""
    effect = comparison.estimate
    if effect.low is None or effect.high is None:
        return "inconclusive", "no_interval"
    significant = comparison.p_adjusted <= thresholds.alpha
    return _judge_rise(-effect.high, -effect.low, 0.0, None, significant)


def judge_experiment(
    experiment: Experiment,
    status: OutcomeStatus,
    compare: Compare,
    thresholds: Thresholds,
    *,
    exact: bool | None = None,
    traffic: Traffic,
) -> tuple[Clause, ...]:
    """Verdict on each prediction of an experiment.

    Args:
        experiment: The experiment with its predictions.
        status: How the experiment ended.
        compare: Gives the comparison with another experiment.
        thresholds: Where `same` ends and `strong` begins.
        exact: Of decoding, whether the arm emitted the target's own tokens, which is its quality.
        traffic: Mean bytes over all pipeline boundaries, of the experiments whose records have them.
    """
    clauses = []
    for aspect, level, against in predictions(experiment.expect, experiment.versus):
        if status == "not_run":
            verdict, reason = "not_tested", "not_run"
        elif status == "crashed":
            # A crash measures nothing, so it tests only a prediction of trouble.
            trouble = level in ("crash", "unstable")
            verdict, reason = "supported" if trouble else "not_tested", "crashed"
        elif aspect == "less_traffic":
            verdict, reason = _judge_traffic(traffic.get(experiment.id), traffic.get(against or ""))
        elif aspect == "quality" and exact is not None:
            verdict, reason = _judge_exactness(level, exact)
        else:
            comparison = compare(against, "quality" if aspect == "quality" else "speed")
            verdict, reason = judge(level, comparison, thresholds)
        clauses.append(Clause(aspect=aspect, level=level, against=against, verdict=verdict, reason=reason))
    return tuple(clauses)


def predictions(
    expect: Expectation, versus: Identifier | None
) -> list[tuple[Aspect, Level, Identifier | None]]:
    """Each prediction: its aspect, its level, and the experiment that the effect is measured against."""
    predicted: list[tuple[Aspect, Level, Identifier | None]] = []
    if expect.quality is not None:
        predicted.append(("quality", expect.quality, versus))
    if expect.speed is not None:
        predicted.append(("speed", expect.speed, versus))
    orderings: Mapping[Aspect, tuple[Level, tuple[Identifier, ...]]] = {
        "above": ("up", expect.above),
        "below": ("down", expect.below),
        "about": ("same", expect.about),
        "less_traffic": ("down", expect.less_traffic),
    }
    for aspect, (level, experiments) in orderings.items():
        predicted.extend((aspect, level, experiment) for experiment in experiments)
    return predicted


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Verdict on several predictions together: contradicted beats inconclusive beats supported.

    Support for some predictions is inconclusive where others were not tested.
    """
    distinct = set(verdicts)
    if not distinct - {"not_tested"}:
        return "not_tested"
    if "contradicted" in distinct:
        return "contradicted"
    if distinct == {"supported"}:
        return "supported"
    return "inconclusive"


def _judge_same(low: float, high: float, margin: float) -> tuple[Verdict, Reason]:
    if -margin <= low and high <= margin:
        return "supported", "inside_margin"
    if low > margin or high < -margin:
        return "contradicted", "outside_margin"
    return "inconclusive", "across_margin"


def _judge_rise(
    low: float, high: float, margin: float, strong: float | None, significant: bool
) -> tuple[Verdict, Reason]:
    """Verdict on a predicted rise of at least `strong`; callers mirror the interval of a predicted fall."""
    if high < 0 and significant:
        return "contradicted", "other_side"
    if -margin <= low and high <= margin:
        return "contradicted", "inside_margin"
    if strong is not None and high < strong:
        return "contradicted", "short_of_strong"
    if high < 0:
        return "inconclusive", "other_side_not_significant"
    if low <= 0:
        return "inconclusive", "across_zero"
    if strong is not None and low <= strong:
        return "inconclusive", "across_strong"
    if not significant:
        return "inconclusive", "not_significant"
    return "supported", "right_side" if strong is None else "beyond_strong"


def _judge_spread(comparison: Comparison) -> tuple[Verdict, Reason]:
    """Verdict on `unstable`: results vary more over documents than those of the other arm."""
    spread = comparison.log_spread
    if spread is None or spread.low is None or spread.high is None:
        return "inconclusive", "no_interval"
    if spread.low > 0:
        return "supported", "wider"
    if spread.high < 0:
        return "contradicted", "narrower"
    return "inconclusive", "similar_spread"


def _judge_exactness(level: Level, exact: bool) -> tuple[Verdict, Reason]:
    if exact:
        return "supported" if level == "same" else "contradicted", "exact"
    return "contradicted" if level == "same" else "inconclusive", "inexact"


def _judge_traffic(arm_bytes: float | None, versus_bytes: float | None) -> tuple[Verdict, Reason]:
    """Verdict on less traffic than the other arm; bytes are counted, so there is no interval."""
    if arm_bytes is None or versus_bytes is None:
        return "not_tested", "no_bytes"
    return ("supported", "fewer_bytes") if arm_bytes < versus_bytes else ("contradicted", "no_fewer_bytes")
