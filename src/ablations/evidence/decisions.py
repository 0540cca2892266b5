"""Decisions: what the data say of each prediction of a study.

The predictions of confirmatory experiments about measured effects are one family, decided by rule S (`rule`).
Facts that are counted have no interval and no place in it. All other predictions are exploratory: their
effects are printed with unadjusted intervals, and nothing is said of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from pydantic import PositiveInt

from ablations.core.contract import Contract, Identifier, Proportion
from ablations.evidence.effects import Effects
from ablations.evidence.expectations import Aspect, Experiment, Level, Look
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.evidence.records import ExperimentRecords, OutcomeStatus, noise_floors
from ablations.evidence.rule import NOT_RESOLVED, Outcome, Reading, Region, Word, read_family, region
from ablations.evidence.statistics import UNDEFINED, Endpoint, Mean, stacked

__all__ = ["Decision", "Outcome", "OutcomeStatus", "Prediction", "Reason", "decide", "decided", "predictions"]

Kind = Literal["confirmatory", "exploratory", "counted"]
Reason = Literal[
    "exploratory",
    "crashed",
    "not_run",
    "no_comparator",
    "not_measured",
    "no_interval",
    "no_look",
    "below_noise",
]
"""Why there is no word. `no_comparator`: the other arm has no result that compares; `not_measured`: the
experiment does not measure this; `no_interval`: the data define none; `no_look`: no declared look has been
reached for it; `below_noise`: the difference of speed is below the noise of timing."""

ENDPOINTS: Mapping[Aspect, Endpoint] = {
    "text": "text",
    "retrieval": "retrieval",
    "speed": "speed",
    "above": "speed",
    "below": "speed",
    "about": "speed",
}
"""What is measured for a prediction; those of other aspects are counted."""

BASELINE = "baseline"
"""Experiment whose documents and prompts say which looks are reached."""


class Prediction(NamedTuple):
    """One prediction of an experiment.

    Attributes:
        experiment: Experiment.
        aspect: What it is about.
        level: Predicted effect; of an ordering `up` (above), `down` (below, less traffic) or `same` (about),
            of exactness `same`, of a crash `down`.
        against: Experiment that the effect is measured against; None for the reference beside the arm.
    """

    experiment: Identifier
    aspect: Aspect
    level: Level
    against: Identifier | None


class Decision(Contract):
    """What the data say of one prediction."""

    experiment: Identifier
    """Experiment."""
    aspect: Aspect
    """What was predicted."""
    level: Level
    """Predicted effect, as of `Prediction`."""
    against: Identifier | None
    """Experiment that the effect is measured against; null for the reference beside the arm."""
    kind: Kind
    """Whether it is of the confirmatory family, a counted fact, or neither."""
    outcome: Outcome | None
    """What the data say; null where nothing is said or was tested."""
    effect: float | None = None
    """The effect that was read: at the look, or of operations; null outside the family and without data."""
    p: Proportion | None = None
    """Largest p-value over the cuts of the prediction; null outside the family and without data."""
    p_adjusted: Proportion | None = None
    """Largest p-value over the ends of the word's region (`p` without a word) times `comparisons`, at most 1.
    Where there is a word it is at most the level of the look."""
    comparisons: PositiveInt | None = None
    """Predictions in the family when this one was read; its interval covers 1 - level / comparisons."""
    low: float | None = None
    """Lower end of that interval, as an effect; null where there is none."""
    high: float | None = None
    """Upper end of that interval."""
    look: PositiveInt | None = None
    """Look at which it was read, counted from 1; null outside the family and without data."""
    reason: Reason | None = None
    """Why there is no word; null where there is one, or the interval allows none."""


def predictions(experiment: Experiment) -> list[Prediction]:
    """The predictions of an experiment."""
    name, versus, expect = experiment.id, experiment.versus, experiment.expect
    found: list[Prediction] = []
    quality: Level | None = None
    if expect.quality == "crash":
        found.append(Prediction(name, "crash", "down", versus))
    elif expect.quality is not None and experiment.method == "dynatree":
        found.append(Prediction(name, "exact", "same", versus))
    else:
        quality = expect.quality
    effects: Mapping[Aspect, Level | None] = {
        "text": expect.text or quality,
        "retrieval": expect.retrieval or quality,
        "speed": expect.speed,
    }
    found += [Prediction(name, aspect, level, versus) for aspect, level in effects.items() if level]
    orderings: Mapping[Aspect, tuple[Level, tuple[Identifier, ...]]] = {
        "above": ("up", expect.above),
        "below": ("down", expect.below),
        "about": ("same", expect.about),
        "less_traffic": ("down", expect.less_traffic),
    }
    for aspect, (level, others) in orderings.items():
        found += [Prediction(name, aspect, level, other) for other in others]
    return found


def decide(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> tuple[Decision, ...]:
    """What the data say of every prediction of a study, in the order of experiments and predictions.

    Args:
        arms: All experiments, by id.
        settings: The confirmatory experiments, thresholds and looks.
    """
    study = _Study(arms, settings)
    made = [prediction for arm in arms.values() for prediction in predictions(arm.experiment)]
    family = study.family([item for item in made if study.kind(item) == "confirmatory"])
    return tuple(family.get(item) or study.unread(item) for item in made)


def decided(decisions: Iterable[Decision]) -> tuple[int, int]:
    """How many confirmatory predictions are decided, and how many there are."""
    outcomes = [decision.outcome for decision in decisions if decision.kind == "confirmatory"]
    return sum(outcome not in (None, "not_resolved") for outcome in outcomes), len(outcomes)


def reached(looks: Sequence[Look], arms: Mapping[str, ExperimentRecords]) -> list[Look]:
    """The looks for which the baseline has documents or prompts; all where the study has no baseline.

    A later look may be at one measure alone; effects on the other stay as they were read before.
    """
    if BASELINE not in arms:
        return list(looks)
    documents, prompts = (len(arms[BASELINE].values.get(name, ())) for name in ("text", "retrieval"))
    return [look for look in looks if look.documents <= documents or look.retrieval <= prompts]


class _Study:
    """The arms of a study while its predictions are decided."""

    def __init__(self, arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> None:
        self._arms = arms
        self._settings = settings
        self._effects = Effects(arms, settings)
        self._floors = noise_floors(arms.values())

    def kind(self, prediction: Prediction) -> Kind:
        """Which kind of prediction it is, which no result plays a part in."""
        arm = self._arms[prediction.experiment]
        if prediction.aspect not in ENDPOINTS or self._is_counted(prediction):
            return "counted"
        confirmatory = getattr(self._settings.confirmatory, arm.experiment.method)
        if prediction.experiment not in confirmatory or self._is_unmeasured(prediction):
            return "exploratory"
        return "confirmatory"

    def family(self, members: Sequence[Prediction]) -> dict[Prediction, Decision]:
        """Decisions on the confirmatory predictions that were tested; the others keep their places in it."""
        if not members:
            return {}
        regions = [self._region(member) for member in members]
        settings = self._settings
        looks: list[Look | None] = [*reached(settings.looks, self._arms)] if settings.looks else [None]
        effects = [self._at(members, look) for look in looks]
        alphas = [look.alpha if look else settings.thresholds.alpha for look in looks]
        if not looks:
            effects, alphas = [stacked([UNDEFINED] * len(members))], [settings.thresholds.alpha]
        read = read_family(list(zip(effects, alphas, strict=True)), regions)
        return {
            member: self._said(member, place, regions[place], read, effects)
            for place, member in enumerate(members)
            if self._untested(member) is None
        }

    def unread(self, prediction: Prediction) -> Decision:
        """Decision on a prediction that the family says nothing of."""
        kind = self.kind(prediction)
        if prediction.aspect == "crash" and self._arms[prediction.experiment].status == "crashed":
            return _decision(prediction, kind, "as_expected")
        reason = self._untested(prediction)
        if reason is not None:
            return _decision(prediction, kind, None, reason=reason)
        if kind == "counted" and prediction.aspect in ENDPOINTS:
            effect = self._counted_speed(prediction)
            expected = self._region(prediction)
            # Operations that differ by less than the margin are the same speed, whatever the direction.
            counted = effect if abs(effect) > expected.margin else 0.0
            return _decision(prediction, kind, expected.word(counted, counted).outcome, effect=effect)
        if kind == "counted":
            return _decision(prediction, kind, self._counted(prediction))
        return _decision(prediction, kind, None, reason="exploratory")

    def _said(
        self, member: Prediction, place: int, expected: Region, read: Reading, effects: Sequence[Mean]
    ) -> Decision:
        """Decision on a member of the family, at its place in a reading of effects by look."""
        look = int(read.look[place])
        if not look:
            return _decision(member, "confirmatory", "not_resolved", reason="no_look")
        word = expected.words[read.word[place]] if read.word[place] >= 0 else NOT_RESOLVED
        value, comparisons = float(effects[look - 1].value[place]), int(read.comparisons[place])
        outcome: Outcome = word.outcome
        reason: Reason | None = None
        low: float | None = float(read.low[place])
        high: float | None = float(read.high[place])
        if math.isinf(read.low[place]) or math.isinf(read.high[place]):
            reason, low, high = "no_interval", None, None
        elif self._is_below_noise(member, word, value):
            outcome, reason = "not_resolved", "below_noise"
        return _decision(
            member,
            "confirmatory",
            outcome,
            reason=reason,
            effect=value,
            p=float(read.p[place]),
            p_adjusted=min(1.0, comparisons * float(read.word_p[place])),
            comparisons=comparisons,
            low=low,
            high=high,
            look=look,
        )

    def _is_below_noise(self, prediction: Prediction, word: Word, value: float) -> bool:
        """Whether a word claims a difference of speed that the noise of timing exceeds."""
        if ENDPOINTS[prediction.aspect] != "speed":
            return False
        floor = self._floors.get(self._arms[prediction.experiment].experiment.method, 0.0)
        return (word.low >= 0 or word.high <= 0) and abs(value) < floor

    def _region(self, prediction: Prediction) -> Region:
        return region(prediction.level, ENDPOINTS[prediction.aspect], self._settings.thresholds)

    def _at(self, members: Sequence[Prediction], look: Look | None) -> Mean:
        """Effects of the family at a look, shape (k,); decoding is read on all its prompts at each look."""
        means = []
        for experiment, aspect, _, against in members:
            endpoint = ENDPOINTS[aspect]
            first = None
            if look is not None and self._arms[experiment].experiment.method == "sdtp":
                first = look.retrieval if endpoint == "retrieval" else look.documents
            means.append(self._effects.mean(experiment, against, endpoint, first) or UNDEFINED)
        return stacked(means)

    def _untested(self, prediction: Prediction) -> Reason | None:
        """Why there is nothing to say a word of; None where there is."""
        arm = self._arms[prediction.experiment]
        if arm.status != "ok":
            return arm.status
        if self._is_unmeasured(prediction):
            return "not_measured"
        if self.kind(prediction) != "counted":
            endpoint = ENDPOINTS[prediction.aspect]
            effect = self._effects.mean(prediction.experiment, prediction.against, endpoint)
            return None if effect else "no_comparator"
        if prediction.aspect in ("exact", "crash") or prediction.against is None:
            return None
        other = self._arms.get(prediction.against)
        if other is None or other.status != "ok":
            return "no_comparator"
        if prediction.aspect == "less_traffic" and None in (_boundary_bytes(arm), _boundary_bytes(other)):
            return "not_measured"
        return None

    def _is_counted(self, prediction: Prediction) -> bool:
        """Whether a speed is known from operations: an arm that runs the other's kernels is not timed."""
        if ENDPOINTS[prediction.aspect] != "speed":
            return False
        sides = [self._arms[prediction.experiment], self._arms.get(prediction.against or "")]
        return any(arm is not None and _is_untimed(arm) for arm in sides)

    def _is_unmeasured(self, prediction: Prediction) -> bool:
        record = self._arms[prediction.experiment].record
        asked = getattr(record.spec, "retrieval", None) if record else True
        return prediction.aspect == "retrieval" and not asked

    def _counted(self, prediction: Prediction) -> Outcome:
        arm = self._arms[prediction.experiment]
        if prediction.aspect == "crash":
            return "opposite"
        if prediction.aspect == "exact":
            samples = cast(DecodeRecord, arm.record).samples
            return "as_expected" if all(sample.matched or sample.ties for sample in samples) else "different"
        other = self._arms[cast(Identifier, prediction.against)]
        own, theirs = (_boundary_bytes(side) or 0.0 for side in (arm, other))
        if own == theirs:
            return "no_difference"
        return "as_expected" if own < theirs else "opposite"

    def _counted_speed(self, prediction: Prediction) -> float:
        """Log ratio of operations, as an effect on speed."""
        arm = self._arms[prediction.experiment]
        other = self._arms.get(prediction.against or "")
        theirs = _flops(other) if other else _flops(arm, "reference_prefill_flops")
        return math.log(theirs / _flops(arm))


def _decision(prediction: Prediction, kind: Kind, outcome: Outcome | None, **more: Any) -> Decision:
    return Decision(**prediction._asdict(), kind=kind, outcome=outcome, **more)


def _is_untimed(arm: ExperimentRecords) -> bool:
    """Whether an experiment that was run does not measure its prefill time."""
    return (
        arm.experiment.method == "sdtp"
        and arm.status != "not_run"
        and all(cast(SdtpRecord, record).spec.timing is None for record in arm.records)
    )


def _flops(arm: ExperimentRecords, name: str = "prefill_flops") -> float:
    """Floating-point operations of an arm's prefill, a mean over its records."""
    return float(np.mean([getattr(record.totals, name) for record in arm.records]))


def _boundary_bytes(arm: ExperimentRecords) -> float | None:
    """Mean bytes over all pipeline boundaries; None where there are none."""
    samples = cast(SdtpRecord, arm.record).samples
    sent = [sum(sample.boundary_bytes) for sample in samples if sample.boundary_bytes]
    return float(np.mean(sent)) if sent else None
