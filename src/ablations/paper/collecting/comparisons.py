"""Every effect that the paper prints or a verdict needs."""

from collections.abc import Mapping

from tqdm import tqdm

from ablations.evidence.expectations import Experiment, Method
from ablations.evidence.inputs import PaperSettings, resampling
from ablations.evidence.records import ExperimentRecords, comparable
from ablations.evidence.statistics import Comparison, Endpoint, compare, holm
from ablations.evidence.verdicts import predictions
from ablations.paper.collecting.naming import naming

Key = tuple[str, str | None, Endpoint]
Hypothesis = tuple[frozenset[tuple[str, ...]], Endpoint]
"""The records of both sides, whichever comes first, and what is compared."""


def compare_all(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> dict[Key, Comparison]:
    """Compare every experiment with what it is measured against; Holm runs per method and measure.

    Speeds of different devices are not compared. Experiments that share their records share their
    hypotheses: one test, however often the paper names it.
    """
    wanted = dict.fromkeys(key for arm in arms.values() for key in _keys(arm.experiment, settings))
    found: dict[Key, Comparison] = {}
    for name, versus, measure in tqdm(wanted, desc="comparisons", mininterval=2):
        arm, other = arms[name], arms.get(versus or "")
        if measure not in arm.values or (
            versus is not None and (other is None or measure not in other.values)
        ):
            continue
        if measure == "speed" and other is not None and not comparable(arm, other):
            continue
        with naming(*(item.experiment for item in (arm, other) if item is not None)):
            comparison = compare(
                arm.values[measure],
                other.values[measure] if other is not None else None,
                resampling(settings),
                names=(name, versus),
                measure=measure,
            )
        if comparison is not None:
            found[name, versus, measure] = comparison
    families: dict[tuple[Method, Endpoint], dict[Hypothesis, float]] = {}
    hypotheses = {key: _hypothesis(key, arms) for key in found}
    for key, comparison in found.items():
        family = families.setdefault((arms[key[0]].experiment.method, comparison.measure), {})
        family[hypotheses[key]] = comparison.p
    adjusted = {hypothesis: p for family in families.values() for hypothesis, p in holm(family).items()}
    return {
        key: item.model_copy(update={"p_adjusted": adjusted[hypotheses[key]]}) for key, item in found.items()
    }


def _hypothesis(key: Key, arms: Mapping[str, ExperimentRecords]) -> Hypothesis:
    name, versus, measure = key
    sides = (arms[name].experiment.records, () if versus is None else arms[versus].experiment.records)
    return frozenset(sides), measure


def _keys(experiment: Experiment, settings: PaperSettings) -> list[Key]:
    keys: list[Key] = [
        (experiment.id, against, "quality" if aspect == "quality" else "speed")
        for aspect, _, against in predictions(experiment.expect, experiment.versus)
        # Bytes are counted: there is nothing to estimate.
        if aspect != "less_traffic"
    ]
    if experiment.versus is not None:
        keys += [(experiment.id, experiment.versus, measure) for measure in ("quality", "speed")]
    if experiment.id in settings.backward and experiment.id != settings.full_method:
        keys.append((experiment.id, settings.full_method, "speed"))
    return keys
