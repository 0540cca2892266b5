"""Every effect that the paper prints."""

from collections.abc import Iterator, Mapping

from ablations.core.contract import Identifier
from ablations.evidence.decisions import ENDPOINTS, predictions
from ablations.evidence.effects import Effects
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.records import ExperimentRecords
from ablations.evidence.statistics import Comparison, Endpoint
from ablations.paper.collecting.naming import naming

Key = tuple[Identifier, Identifier | None, Endpoint]


def comparisons(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> Iterator[Comparison]:
    """Compare every experiment with what it is measured against, as far as both have results.

    Speeds of different devices are not compared.
    """
    effects = Effects(arms, settings)
    wanted = dict.fromkeys(key for arm in arms.values() for key in _keys(arm.experiment, settings))
    for arm, versus, measure in wanted:
        with naming(*(arms[name].experiment for name in (arm, versus) if name and name in arms)):
            found = effects.comparison(arm, versus, measure)
        if found is not None:
            yield found


def _keys(experiment: Experiment, settings: PaperSettings) -> Iterator[Key]:
    for prediction in predictions(experiment):
        if prediction.aspect in ENDPOINTS:
            yield experiment.id, prediction.against, ENDPOINTS[prediction.aspect]
    if experiment.versus is not None:
        for measure in ("text", "retrieval", "speed"):
            yield experiment.id, experiment.versus, measure
    if experiment.id in settings.backward and experiment.id != settings.full_method:
        yield experiment.id, settings.full_method, "speed"
