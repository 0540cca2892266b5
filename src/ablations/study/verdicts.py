"""From an interval to a verdict: what the data say about what was predicted."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from ablations.study.contracts.base import Contract
from ablations.study.contracts.paper import Expectation, Experiment, Identifier, Level, Thresholds
from ablations.study.contracts.statistics import Comparison, Measure

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


class Part(Contract):
    """The verdict on one prediction of an experiment."""

    aspect: Aspect
    """What was predicted."""
    level: Level
    """How; an ordering is `up` (above), `down` (below, less traffic) or `same` (about)."""
    against: Identifier | None
    """Experiment of the comparison; null is the reference measured beside the arm."""
    verdict: Verdict
    """What the data say."""
    reason: Reason
    """Where the interval lies, or why there is none."""


Compare = Callable[[Identifier | None, Measure], Comparison | None]
Traffic = Mapping[Identifier, float]


def judge(level: Level, comparison: Comparison | None, thresholds: Thresholds) -> tuple[Verdict, Reason]:
    """Verdict on a prediction about an arm that ran.

    Gains point up: quality is better by the NLL's fall, speed by the log speed-up's rise.

    Args:
        level: What was predicted.
        comparison: The measured effect; None where the other arm has no result.
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
    """Verdict on the prediction that the arm ranks worse than the other arm; no margin counts as same."""
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
) -> tuple[Part, ...]:
    """Verdict on each prediction of an experiment.

    Args:
        experiment: What was predicted, and the experiment its effect is measured against.
        status: How the experiment ended.
        compare: Gives the comparison with an experiment on a measure.
        thresholds: Where `same` ends and `strong` begins.
        exact: For decoding, whether the arm emitted the target's own tokens; that is its quality.
        traffic: Mean bytes over all pipeline boundaries, of the experiments whose records have them.
    """
    parts = []
    for aspect, level, against in predictions(experiment.expect, experiment.versus):
        if status == "not_run":
            verdict, reason = "not_tested", "not_run"
        elif status == "crashed":
            # Nothing was measured, so only a prediction of trouble is tested by a crash.
            foreseen = level in ("crash", "unstable")
            verdict, reason = "supported" if foreseen else "not_tested", "crashed"
        elif aspect == "less_traffic":
            verdict, reason = _judge_traffic(traffic.get(experiment.id), traffic.get(against or ""))
        elif aspect == "quality" and exact is not None:
            verdict, reason = _judge_exactness(level, exact)
        else:
            comparison = compare(against, "quality" if aspect == "quality" else "speed")
            verdict, reason = judge(level, comparison, thresholds)
        parts.append(Part(aspect=aspect, level=level, against=against, verdict=verdict, reason=reason))
    return tuple(parts)


def predictions(
    expect: Expectation, versus: Identifier | None
) -> list[tuple[Aspect, Level, Identifier | None]]:
    """Each prediction as aspect, level and the experiment it is measured against."""
    found: list[tuple[Aspect, Level, Identifier | None]] = []
    if expect.quality is not None:
        found.append(("quality", expect.quality, versus))
    if expect.speed is not None:
        found.append(("speed", expect.speed, versus))
    orderings: Mapping[Aspect, tuple[Level, tuple[Identifier, ...]]] = {
        "above": ("up", expect.above),
        "below": ("down", expect.below),
        "about": ("same", expect.about),
        "less_traffic": ("down", expect.less_traffic),
    }
    for aspect, (level, others) in orderings.items():
        found.extend((aspect, level, other) for other in others)
    return found


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict of several: contradicted beats inconclusive beats supported.

    Where some predictions were tested and others could not be, support is not complete: inconclusive.
    """
    given = set(verdicts)
    if not given - {"not_tested"}:
        return "not_tested"
    if "contradicted" in given:
        return "contradicted"
    if given == {"supported"}:
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
    """A predicted rise of at least `strong`; a predicted fall comes mirrored."""
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
    """`unstable`: results vary more over documents than the other arm's."""
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


def _judge_traffic(own: float | None, other: float | None) -> tuple[Verdict, Reason]:
    """Less traffic than the other arm: bytes are counted, so there is no interval."""
    if own is None or other is None:
        return "not_tested", "no_bytes"
    return ("supported", "fewer_bytes") if own < other else ("contradicted", "no_fewer_bytes")
