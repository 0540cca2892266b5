"""How well each trained scorer ranks tokens, and what each part of its training is worth for that."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablations.paper.collecting.naming import naming
from ablations.paper.results.sdtp import ScorerRanking
from ablations.study.arms import Arm, resampling
from ablations.study.contracts.paper import PaperSettings
from ablations.study.contracts.sdtp import Ranking, Training
from ablations.study.files import canonical_json
from ablations.study.statistics import Comparison, compare, estimate, holm
from ablations.study.verdicts import judge_ranking

MEASURES = ("spearman", "ndcg", "overlap")


def scorer_rankings(arms: Mapping[str, Arm], settings: PaperSettings) -> tuple[ScorerRanking, ...]:
    """Ranking of every trained scorer; Holm runs over all comparisons of rank correlations."""
    scorers: dict[str, list[Arm]] = {}
    for arm in arms.values():
        if arm.status == "ok" and _training(arm) is not None and _training(arm).ranking:
            scorers.setdefault(_key(_training(arm)), []).append(arm)
    baseline = next(
        (users[0] for users in scorers.values() if any(arm.experiment.id == "baseline" for arm in users)),
        None,
    )
    found = []
    for users in scorers.values():
        with naming(*(arm.experiment for arm in (users[0], baseline) if arm is not None)):
            found.append(_ranking(users, baseline, settings))
    return _judged(found, settings)


def _training(arm: Arm) -> Training | None:
    totals = arm.record.totals
    return getattr(totals, "training", None)


def _key(training: Training) -> str:
    """What makes a scorer, seeds apart."""
    return canonical_json(
        {
            "pruner": training.pruner.model_dump(mode="json", exclude={"seed"}),
            "saliency": training.saliency.model_dump(mode="json"),
        }
    )


def _ranking(users: list[Arm], baseline: Arm | None, settings: PaperSettings) -> ScorerRanking:
    arm, how = users[0], resampling(settings)
    name, training = arm.experiment.id, _training(arm)
    trained = {measure: _per_window(arm, "ranking", measure) for measure in MEASURES}
    untrained = {measure: _per_window(arm, "ranking_untrained", measure) for measure in MEASURES}
    effect, removed = None, ()
    if baseline is not None and baseline is not arm and _comparable(training, _training(baseline)):
        effect = compare(
            trained["spearman"],
            _per_window(baseline, "ranking", "spearman"),
            how,
            names=(name, baseline.experiment.id),
            measure="ranking",
        )
        weights = (item.pruner.losses.model_dump() for item in (_training(baseline), training))
        before, after = weights
        removed = tuple(loss for loss in before if before[loss] and not after[loss])
    gain = compare(
        trained["spearman"] - untrained["spearman"], None, how, names=(name, None), measure="ranking"
    )
    return ScorerRanking(
        experiments=tuple(user.experiment.id for user in users),
        losses=training.pruner.losses,
        windows=len(trained["spearman"]),
        **{measure: estimate(values, how) for measure, values in trained.items()},
        **{f"{measure}_untrained": estimate(values, how) for measure, values in untrained.items()},
        gain=gain,
        effect=effect,
        removed=removed,
        verdict=None,
        reason=None,
    )


def _comparable(training: Training, other: Training) -> bool:
    """Whether two scorers were measured on the same target, windows and stages."""
    return training.saliency == other.saliency and training.pruner.layers == other.pruner.layers


def _per_window(arm: Arm, when: str, measure: str) -> pd.Series:
    """Mean over stages, then over seeds, of each window (index)."""
    series = []
    for record in arm.records:
        rows: tuple[Ranking, ...] = getattr(record.totals.training, when)
        series.append(
            pd.Series([np.mean(getattr(row, measure)) for row in rows], [row.document for row in rows])
        )
    return pd.concat(series, axis=1, join="inner").mean(axis=1)


def _judged(found: list[ScorerRanking], settings: PaperSettings) -> tuple[ScorerRanking, ...]:
    family: dict[str, float] = {}
    for place, item in enumerate(found):
        family |= {f"{place} gain": item.gain.p}
        family |= {f"{place} effect": item.effect.p} if item.effect else {}
    adjusted = holm(family)

    def adjust(comparison: Comparison, name: str) -> Comparison:
        return comparison.model_copy(update={"p_adjusted": adjusted[name]})

    judged = []
    for place, item in enumerate(found):
        effect = adjust(item.effect, f"{place} effect") if item.effect else None
        verdict, reason = (
            judge_ranking(effect, settings.thresholds) if effect and item.removed else (None, None)
        )
        update = {"gain": adjust(item.gain, f"{place} gain"), "effect": effect}
        judged.append(item.model_copy(update={**update, "verdict": verdict, "reason": reason}))
    return tuple(judged)
