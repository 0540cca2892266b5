"""What the confirmatory family of a study can decide: before a run by its plan, after it by its results."""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from scipy import special

from ablations.core.errors import UserError, one_line_errors
from ablations.core.record import read_contract
from ablations.evidence.decisions import (
    ENDPOINTS,
    Decision,
    Prediction,
    decide,
    decided,
    predictions,
    reached,
)
from ablations.evidence.effects import Effects
from ablations.evidence.inputs import PaperInput, PaperSettings
from ablations.evidence.records import ExperimentRecords, read_arm
from ablations.evidence.rule import region
from ablations.evidence.statistics import Endpoint, Mean
from ablations.specs.dynatree.decode import DecodeSpec
from ablations.specs.dynatree.replay import COSTS, REPLAYED
from ablations.specs.sdtp.record import EvaluateSpec
from ablations.study.planning.family import is_timed
from ablations.study.planning.jobs import Row
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import COLLECT_STAMP, SPEC
from ablations.study.timings import item_times

POWER = 0.8
"""How often a true effect of the size that is said would be decided."""

SPREADS: Mapping[str, float] = {
    "text": 0.06,
    "retrieval": 0.12,
    "prefill speed": 0.03,
    "decoding speed": 0.1,
}
"""Typical standard deviations of paired differences over documents: nats per token, and log ratios."""

ITEMS: Mapping[str, str] = {
    "text": "documents",
    "retrieval": "prompts",
    "prefill speed": "timed documents",
    "decoding speed": "prompts",
}
"""What there would have to be more of."""

MOST = 100_000
"""Documents beyond which more of them are no answer."""

MOST_SEEDS = 50
"""Training seeds beyond which more of them are no answer."""

FEW = 5
"""Open predictions that the last words of a run name."""


class Standing(NamedTuple):
    """How an effect as large as the one observed stands to the words about it.

    Attributes:
        n: Documents or prompts it was observed on.
        distance: How far the effect lies inside the widest region of a word; not positive on a cut.
        spread: Standard deviation of the paired differences.
        between: Estimates of the variance between trainings with their degrees of freedom, which more
            documents do not change; the least favourable counts.
        seeds: Training seeds.
    """

    n: int
    distance: float
    spread: float
    between: tuple[tuple[float, float], ...]
    seeds: int

    def chance(self, n: int, level: float) -> float:
        """Share of studies with n documents or prompts in which such an effect is decided at a level."""
        if self.distance <= 0 or n < 2:
            return 0.0
        return min(self._chance(n, level, variance, df) for variance, df in self.between)

    def _chance(self, n: int, level: float, between: float, between_df: float) -> float:
        of_documents = self.spread**2 / n
        variance = of_documents + between
        df = variance**2 / (of_documents**2 / (n - 1) + between**2 / between_df)
        quantile = special.stdtrit(df, 1 - level / 2)
        return float(special.stdtr(df, self.distance / math.sqrt(variance) - quantile))

    def with_seeds(self, seeds: int) -> "Standing":
        """The same effect with another number of training seeds, at least two."""
        more = seeds / self.seeds, (seeds - 1) / (self.seeds - 1)
        between = tuple((variance / more[0], df * more[1]) for variance, df in self.between)
        return self._replace(between=between, seeds=seeds)

    def needed_seeds(self, level: float) -> int | None:
        """Fewest training seeds that decide it on the documents there are; None where there are none such."""
        if self.seeds == 1:
            return None
        tried = range(self.seeds + 1, MOST_SEEDS + 1)
        return next((n for n in tried if self.with_seeds(n).chance(self.n, level) >= POWER), None)

    def needed(self, level: float) -> int | None:
        """Fewest documents or prompts that decide it with the power aimed at; None where none are enough."""
        low, high = 2, MOST
        if self.chance(high, level) < POWER:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.chance(middle, level) >= POWER else (middle + 1, high)
        return low


class Need(NamedTuple):
    """What an open prediction would need.

    Attributes:
        prediction: What is open.
        reason: Why there is no word; empty where more would decide it.
        measure: Its measure, a key of `ITEMS`.
        there: Documents or prompts there are.
        needed: How many would decide an effect as large as the one observed; None where none would.
        seconds: Time of those that are lacking, by what was done here; None where it is not known.
    """

    prediction: Prediction
    reason: str
    measure: str = ""
    there: int = 0
    needed: int | None = None
    seconds: float | None = None


def before_a_run(plan: Plan) -> Iterator[str]:
    """Lines of text: how many predictions the family has, and which effects it decides.

    Effects are decided at the level of the whole family and of the planned look, with typical spreads.
    """
    settings, rows = plan.config.paper, {row.experiment.id: row for row in plan.rows}
    counts: Counter[tuple[str, int]] = Counter()
    for row in plan.family:
        for prediction in predictions(row.experiment):
            other = rows.get(prediction.against or "")
            if measure := _planned_measure(row, other, prediction):
                counts[measure, _shared(row, other, measure)] += 1
    family = counts.total()
    if not family:
        yield "no confirmatory predictions (paper.confirmatory): nothing will be decided"
        return
    alpha, looks = settings.thresholds.alpha, settings.looks
    evaluation = plan.config.sdtp.evaluation
    at = next((number for number, look in enumerate(looks, 1) if look.documents == evaluation.documents), 0)
    level = (looks[at - 1].alpha if at else alpha) / family
    this = f", this run at look {at} of {len(looks)} (alpha {looks[at - 1].alpha:g})" if at else ""
    yield (
        f"{family} confirmatory predictions of {len(plan.family)} experiments, decided together at"
        f" {alpha:.0%}{this}"
    )
    yield f"{'measure':15} {'predictions':>11} {'n':>4} {'spread':>7} {'decides':>8} {'none within':>12}"
    for (measure, n), count in sorted(counts.items(), key=lambda item: ([*ITEMS].index(item[0][0]), item[0])):
        spread = SPREADS[measure]
        effect, none = (_smallest(spread, n, level, power) for power in (POWER, (1 + POWER) / 2))
        yield (
            f"{measure:15} {count:>11} {n:>4} {spread:>7g} {_size(measure, effect):>8}"
            f" {_size(measure, none):>12}"
        )
    yield (
        f"(spread of paired differences: typical; decides: smallest effect decided in {POWER:.0%} of studies;"
        " none within: smallest margin in which no effect is shown to lie)"
    )


def measured(study: PaperInput) -> dict[str, ExperimentRecords]:
    """The experiments of a study with their records, by id.

    Args:
        study: What the paper is told of it.

    Raises:
        UserError: a record is damaged.
    """
    return {experiment.id: read_arm(experiment) for experiment in study.experiments}


def after_a_run(
    arms: Mapping[str, ExperimentRecords], settings: PaperSettings
) -> tuple[tuple[int, int], list[Need]]:
    """How many confirmatory predictions are decided, of how many; what open ones need, cheapest first.

    Args:
        arms: The experiments, by id.
        settings: The confirmatory experiments, thresholds and looks.
    """
    decisions = confirmatory(arms, settings)
    remaining = Open(arms, settings, decisions)
    return decided(decisions), sorted(map(remaining.need, remaining.decisions), key=_dearness)


def confirmatory(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> list[Decision]:
    """Decisions on the confirmatory predictions of a study."""
    return [each for each in decide(arms, settings) if each.kind == "confirmatory"]


def told(needs: list[Need], most: int | None = None) -> Iterator[str]:
    """Lines of text: what each open prediction would need, the cheapest first.

    Args:
        needs: The open predictions.
        most: Most of them that are named; None for all.
    """
    if needs:
        yield "open predictions, and what would decide effects as large as those observed:"
    yield from (f"  {_told(need)}" for need in needs[:most])
    if most is not None and len(needs) > most:
        yield f"  and {len(needs) - most} more (`python -m ablations.study plan` lists them)"


def _planned_measure(row: Row, other: Row | None, prediction: Prediction) -> str | None:
    """Measure of a prediction, a key of `ITEMS`; None where it is counted."""
    endpoint = ENDPOINTS.get(prediction.aspect)
    if endpoint is None or (endpoint == "speed" and not all(map(is_timed, filter(None, (row, other))))):
        return None
    return _measure(endpoint, row.experiment.method)


def _measure(endpoint: Endpoint, method: str) -> str:
    if endpoint != "speed":
        return endpoint
    return "prefill speed" if method == "sdtp" else "decoding speed"


def _shared(row: Row, other: Row | None, measure: str) -> int:
    """Documents or prompts on which two experiments are measured."""
    own = _counts(row, measure)
    # Decoding without a drafter is the reference itself, on whatever prompts.
    alone = other is None or getattr(other.jobs[0].spec, "drafter", "") is None
    theirs = own if other is None or alone else _counts(other, measure)
    return sum(min(count, theirs.get(kind, 0)) for kind, count in own.items())


def _counts(row: Row, measure: str) -> dict[str, int]:
    """Documents or prompts of an experiment by kind."""
    spec = cast(EvaluateSpec | DecodeSpec, row.jobs[0].spec)
    if isinstance(spec, DecodeSpec):
        return {prompts.kind: prompts.count for prompts in spec.replayed or spec.prompts}
    counts = {
        "text": spec.windows.documents,
        "retrieval": spec.retrieval.count if spec.retrieval else 0,
        "prefill speed": spec.timing.documents if spec.timing else 0,
    }
    return {"": counts[measure]}


def _smallest(spread: float, n: int, level: float, power: float) -> float:
    """Smallest effect that n values of a spread tell from another at a level; infinite for a single one."""
    if n < 2:
        return math.inf
    quantiles = special.stdtrit(n - 1, 1 - level / 2) + special.stdtrit(n - 1, power)
    return float(spread * quantiles / math.sqrt(n))


def _size(measure: str, effect: float) -> str:
    if math.isinf(effect):
        return "-"
    return f"{math.exp(effect):.2f} x" if measure.endswith("speed") else f"{effect:.3f}"


class Open:
    """Open predictions of a study: how they stand, and what they would need.

    Args:
        arms: The experiments, by id.
        settings: The confirmatory experiments, thresholds and looks.
        decisions: The confirmatory family.
    """

    def __init__(
        self,
        arms: Mapping[str, ExperimentRecords],
        settings: PaperSettings,
        decisions: Sequence[Decision],
    ) -> None:
        self._arms = arms
        self._family = len(decisions)
        self._thresholds = settings.thresholds
        self._effects = Effects(arms, settings)
        self._times = item_times()
        looks, done = settings.looks, len(reached(settings.looks, arms))
        # At the next look, or at the last one.
        self._alpha = looks[min(done, len(looks) - 1)].alpha if looks else settings.thresholds.alpha
        self.decisions = [each for each in decisions if each.outcome in (None, "not_resolved")]

    def measure(self, decision: Decision) -> str:
        """What it is measured by, a key of `ITEMS`."""
        return _measure(ENDPOINTS[decision.aspect], self._arms[decision.experiment].experiment.method)

    def level(self, decision: Decision, alpha: float) -> float:
        """Level of one prediction at a look with a share of the error level."""
        return alpha / (decision.comparisons or self._family)

    def standing(self, decision: Decision) -> Standing | None:
        """How the observed effect stands to the words about it; None where there is no interval."""
        arm, against, endpoint = decision.experiment, decision.against, ENDPOINTS[decision.aspect]
        if decision.outcome is None or decision.reason == "below_noise":
            return None
        comparison = self._effects.comparison(arm, against, endpoint)
        mean = self._effects.mean(arm, against, endpoint)
        if comparison is None or mean is None or not comparison.estimate.sd:
            return None
        n, spread, effect = comparison.estimate.n, comparison.estimate.sd, comparison.estimate.value
        words = region(decision.level, endpoint, self._thresholds).words
        return Standing(
            n=n,
            distance=max(min(effect - word.low, word.high - effect) for word in words),
            spread=spread,
            between=tuple(_between(mean, spread, n)),
            seeds=comparison.seeds,
        )

    def need(self, decision: Decision) -> Need:
        """What would decide an effect as large as the one observed."""
        prediction = Prediction(decision.experiment, decision.aspect, decision.level, decision.against)
        standing = self.standing(decision)
        if standing is None:
            return Need(prediction, (decision.reason or "no interval").replace("_", " "))
        measure = self.measure(decision)
        needed = standing.needed(self.level(decision, self._alpha))
        if needed is None:
            reason = f"more than {MOST:,} {ITEMS[measure]}"
            if seeds := standing.needed_seeds(self.level(decision, self._alpha)):
                reason = f"{seeds} training seeds ({standing.seeds} so far)"
            elif standing.seeds > 1:
                reason += f" or {MOST_SEEDS} training seeds"
            return Need(prediction, reason, measure, standing.n)
        needed = max(needed, standing.n + 1)
        arms = (self._arms.get(name or "") for name in (decision.experiment, decision.against))
        each = [self._item_seconds(arm, measure) for arm in arms]
        seconds = None if each[0] is None else (needed - standing.n) * sum(filter(None, each))
        return Need(prediction, "", measure, standing.n, needed, seconds)

    def _item_seconds(self, arm: ExperimentRecords | None, measure: str) -> float | None:
        """Seconds of one more document or prompt of an experiment, over its training seeds.

        Where prompts are replayed, as many of the further ones are timed as of those so far.
        """
        if arm is None:
            return None
        seconds = []
        for record in map(Path, arm.experiment.records):
            folders = _series(record)
            if measure == "decoding speed":
                seconds += self._prompt_seconds(arm, folders)
            elif measure == "prefill speed":
                # The first seed alone is timed.
                seconds.append(self._mean_seconds([folders["prefill"]] if "prefill" in folders else []))
            else:
                seconds.append(self._mean_seconds([folders.get(measure)]))
        known = [each for each in seconds if each is not None]
        return sum(known) if known and len(known) == len(seconds) else None

    def _prompt_seconds(self, arm: ExperimentRecords, folders: Mapping[str, Path]) -> list[float | None]:
        """Seconds of replaying one more prompt, and those of timing it times the share of timed prompts."""
        spec = arm.record.spec if arm.record else None
        replayed = [path for name, path in folders.items() if name.startswith(REPLAYED)]
        if not isinstance(spec, DecodeSpec) or not replayed:
            return [self._mean_seconds([path for name, path in folders.items() if name != COSTS])]
        share = sum(kind.count for kind in spec.prompts) / sum(kind.count for kind in spec.replayed)
        timed = self._mean_seconds([folders[kind.kind] for kind in spec.prompts])
        return [self._mean_seconds(replayed), None if timed is None else timed * share]

    def _mean_seconds(self, series: Sequence[Path | None]) -> float | None:
        """Seconds of an item, the mean over series, which count alike; None where one was not measured."""
        times = [self._times[path.name].seconds for path in series if path and path.name in self._times]
        return sum(times) / max(1, len(times)) if len(times) == len(series) else None


def _between(mean: Mean, spread: float, n: int) -> Iterator[tuple[float, float]]:
    """Variance between trainings by each estimate of an effect's variance, with its degrees of freedom.

    Args:
        mean: The effect.
        spread: Standard deviation of its paired differences over documents.
        n: How many documents.
    """
    of_documents = spread**2 / n
    for error, df in zip(np.atleast_1d(mean.error), np.atleast_1d(mean.df), strict=True):
        between = error**2 - of_documents
        # By Satterthwaite's formula; rounding leaves a trace where there is one training.
        left = error**4 / df - of_documents**2 / (n - 1)
        if between <= 1e-9 * of_documents or left <= 0:
            yield 0.0, 1.0
        else:
            yield float(between), float(between**2 / left)


def _series(record: Path) -> dict[str, Path]:
    """Folders of the series that a record is joined from, by name; none where its spec is gone."""
    try:
        file = json.loads(Path(SPEC.format(digest=record.stem)).read_bytes())
        return {name: Path(path) for name, path in file["inputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def named(prediction: Prediction | Decision) -> str:
    """What people call a prediction."""
    name = f"{prediction.experiment} {prediction.aspect}"
    return f"{name} {prediction.against}" if prediction.aspect in ("above", "below", "about") else name


def _dearness(need: Need) -> tuple[bool, float, float]:
    return (need.needed is None, math.inf if need.seconds is None else need.seconds, need.needed or 0)


def _told(need: Need) -> str:
    name = named(need.prediction)
    if need.needed is None:
        return f"{name}: {need.reason}"
    time = "" if need.seconds is None else f", about {duration(need.seconds)} more"
    return f"{name}: {need.needed} {ITEMS[need.measure]} ({need.there} so far{time})"


def duration(seconds: float) -> str:
    """Seconds, or minutes where there are many."""
    return f"{max(1.0, seconds):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Command line; Snakemake prints the same at the end of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.study.prospects",
        description="Say what the open confirmatory predictions of a measured study would need.",
        epilog="example: python -m ablations.study.prospects --plan results/stamp/collect.json",
    )
    parser.add_argument("--plan", type=Path, default=Path(COLLECT_STAMP), help="stamp of the rule `collect`")
    arguments = parser.parse_args()
    with one_line_errors(arguments.plan):
        if not arguments.plan.is_file():
            raise UserError(f"{arguments.plan}: missing; snakemake writes it when it plans a study")
        study = read_contract(arguments.plan, PaperInput)
        _, needs = after_a_run(measured(study), study.settings)
        print("\n".join(told(needs, FEW)))


if __name__ == "__main__":
    main()
