"""How well each trained scorer ranks tokens, and what each part of its training is worth for that."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablations.core.files import canonical_json
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.records import ExperimentRecords
from ablations.evidence.statistics import ANY_SEED, Comparison, compare, estimate
from ablations.paper.collecting.naming import naming
from ablations.paper.results.sdtp import ScorerRanking
from ablations.specs.sdtp.evaluate import Training
from ablations.specs.sdtp.train import Ranking

MEASURES = ("spearman", "ndcg", "overlap")


def scorer_rankings(
    arms: Mapping[str, ExperimentRecords], settings: PaperSettings
) -> tuple[ScorerRanking, ...]:
    """Ranking of every trained scorer."""
    scorers: dict[str, list[ExperimentRecords]] = {}
    for arm in arms.values():
        if (scorer := scorer_of(arm)) is not None:
            scorers.setdefault(scorer, []).append(arm)
    baseline = next(
        (users[0] for users in scorers.values() if any(arm.experiment.id == "baseline" for arm in users)),
        None,
    )
    found = []
    for users in scorers.values():
        with naming(*(arm.experiment for arm in (users[0], baseline) if arm is not None)):
            found.append(_ranking(users, baseline, settings.thresholds.alpha))
    return tuple(found)


def scorer_of(arm: ExperimentRecords) -> str | None:
    """What makes an arm's scorer, seeds apart; None where it has none whose ranking was measured."""
    training = _training(arm) if arm.status == "ok" else None
    if training is None or not training.ranking:
        return None
    return canonical_json(
        {
            "pruner": training.pruner.model_dump(mode="json", exclude={"seed"}),
            "saliency": training.saliency.model_dump(mode="json"),
        }
    )


def _training(arm: ExperimentRecords) -> Training | None:
    return getattr(arm.record.totals, "training", None)


def _ranking(
    users: list[ExperimentRecords], baseline: ExperimentRecords | None, alpha: float
) -> ScorerRanking:
    arm = users[0]
    name, training = arm.experiment.id, _training(arm)
    assert training is not None
    other = _training(baseline) if baseline is not None and baseline is not arm else None
    trained = {measure: _per_window(arm, "ranking", measure) for measure in MEASURES}
    untrained = {measure: _per_window(arm, "ranking_untrained", measure) for measure in MEASURES}
    effect: Comparison | None = None
    if baseline is not None and other is not None and _comparable(training, other):
        effect = compare(
            trained["spearman"],
            _per_window(baseline, "ranking", "spearman"),
            alpha,
            names=(name, baseline.experiment.id),
            measure="ranking",
        )
    gain = compare(
        trained["spearman"] - untrained["spearman"], None, alpha, names=(name, None), measure="ranking"
    )
    return ScorerRanking(
        experiments=tuple(user.experiment.id for user in users),
        losses=training.pruner.losses,
        windows=len(trained["spearman"]),
        **{measure: estimate(values.mean(axis=1), alpha) for measure, values in trained.items()},
        **{
            f"{measure}_untrained": estimate(values.mean(axis=1), alpha)
            for measure, values in untrained.items()
        },
        gain=gain,
        effect=effect,
    )


def _comparable(training: Training, other: Training) -> bool:
    """Whether two scorers were measured on the same target, windows and stages."""
    return training.saliency == other.saliency and training.pruner.layers == other.pruner.layers


def _per_window(arm: ExperimentRecords, when: str, measure: str) -> pd.DataFrame:
    """Mean over stages of each held-out window (index) and seed (column)."""
    series = []
    for record in arm.records:
        rows: tuple[Ranking, ...] = getattr(record.totals.training, when)
        series.append(
            pd.Series([np.mean(getattr(row, measure)) for row in rows], [row.document for row in rows])
        )
    return pd.concat(series, axis=1, join="inner", keys=arm.experiment.seeds or (ANY_SEED,))
