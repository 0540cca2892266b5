"""What drafters are made of and calibrated on, as jobs."""

from collections.abc import Iterable, Mapping
from typing import Any

from ablations.core.errors import UserError
from ablations.specs.dynatree.arm import (
    DistilledDraftSpec,
    DraftSpec,
    HybridDraftSpec,
    Mixture,
    NeuralDraftSpec,
    NgramDraftSpec,
)
from ablations.specs.dynatree.calibrate_costs import CostSpec, DraftTiming
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec, CountedTrees
from ablations.specs.dynatree.calibrate_target import TargetCostSpec, TargetTiming
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.dynatree.prompts import PromptSelection, PromptSet
from ablations.specs.lm import Compute
from ablations.specs.userfiles import content_hash, user_path
from ablations.study.config.dynatree import (
    CostCalibration,
    DistilledChoice,
    DrafterChoice,
    HybridChoice,
    NeuralChoice,
    NgramChoice,
    Prompts,
)
from ablations.study.planning.jobs import Artefacts, Job, Sources
from ablations.study.planning.stages import (
    CALIBRATE_COSTS,
    CALIBRATE_DRAFTER,
    CALIBRATE_TARGET,
    DISTIL,
    DISTIL_TEACHER,
    FIT_NGRAM,
)

READ_BY = {"ngram": ("ngram",), "distilled": ("distilled",), "neural": ("draft",)}
"""What a source is made of, by its kind."""


def prompt_sets(
    kinds: Mapping[str, Prompts], most: int | None, artefacts: Artefacts
) -> tuple[tuple[PromptSet, ...], dict[str, Job]]:
    """Prompt sets of a spec, at most so many prompts of each kind, and the texts they are taken from."""
    sets = []
    for kind, prompts in kinds.items():
        count = min(prompts.count, most or prompts.count)
        sets.append(PromptSet(kind=kind, **prompts.fields_of(PromptSelection) | {"count": count}))
    return tuple(sets), {prompts.text: artefacts.text(prompts.text) for prompts in sets}


class CalibrationPlanner:
    """Plans what is found on validation prompts: costs of the target, and of drafters costs and acceptance.

    Args:
        settings: What costs are calibrated on; None where nothing is.
        compute: How decoding computes.
        target: The job that makes the target.
        artefacts: Plans models and texts.
        sources: Code and pins.
    """

    def __init__(
        self,
        settings: CostCalibration | None,
        compute: Compute,
        target: Job,
        artefacts: Artefacts,
        sources: Sources,
    ) -> None:
        self._settings = settings
        self._compute = compute
        self._target = target
        self._artefacts = artefacts
        self._sources = sources

    @property
    def wanted(self) -> bool:
        """Whether anything is calibrated."""
        return self._settings is not None

    def settings(self, key: str) -> CostCalibration:
        """What costs are calibrated on.

        Raises:
            UserError: nothing, though the key `key` needs it.
        """
        if self._settings is None:
            raise UserError(f"{key}: calibrated costs are needed; add the key dynatree.calibration")
        return self._settings

    def acceptance(self, drafter: DraftSpec, made_of: Mapping[str, Job]) -> dict[str, Job]:
        """The jobs that calibrate a drafter's probabilities, one for each source that it draws on.

        Args:
            drafter: The drafter.
            made_of: What it is made of, by the names that it knows them by.
        """
        if self._settings is None:
            return {}
        shared, read = self._shared(self._settings)
        counted = self._settings.fields_of(CountedTrees)
        found = {}
        for source in _sources(drafter):
            spec = AcceptanceSpec(drafter=source, **shared, **counted)
            own = {name: job for name, job in made_of.items() if name in READ_BY.get(source.kind, ())}
            found[f"{source.kind}_acceptance"] = Job(CALIBRATE_DRAFTER, spec, self._sources, read | own)
        return found

    def costs(self, drafter: DraftSpec, inputs: Mapping[str, Job], key: str) -> Job:
        """The job that measures what a drafter costs.

        Args:
            drafter: The drafter.
            inputs: What it is made of, and its acceptance.
            key: Key that needs the costs, for errors.

        Raises:
            UserError: nothing is calibrated.
        """
        settings = self.settings(key)
        shared, read = self._shared(settings)
        timing = TargetCostSpec(
            prompts=shared["prompts"], compute=self._compute, **settings.fields_of(TargetTiming)
        )
        target = Job(CALIBRATE_TARGET, timing, self._sources, read)
        chosen = settings.fields_of(DraftTiming) | settings.fields_of(CountedTrees)
        spec = CostSpec(drafter=drafter, calibrated=True, **shared, **chosen)
        return Job(CALIBRATE_COSTS, spec, self._sources, {**read, **inputs, "target": target})

    def _shared(self, settings: CostCalibration) -> tuple[dict[str, Any], dict[str, Job]]:
        """What the specs of drafters' calibrations have in common, and what they read."""
        prompts, texts = prompt_sets(settings.prompts, None, self._artefacts)
        shared = {"prompts": prompts, "new_tokens": settings.new_tokens, "compute": self._compute}
        return shared, {"model": self._target} | texts


def _sources(drafter: DraftSpec) -> Iterable[DraftSpec]:
    """The drafters that a mixture mixes, or the drafter itself."""
    if isinstance(drafter, HybridDraftSpec):
        return DistilledDraftSpec(), NgramDraftSpec(context_weight=drafter.context_weight)
    return (drafter,)


class DrafterPlanner:
    """Plans what drafters need, shared wherever it is the same.

    Args:
        drafters: Drafters by name; what they refer to is there.
        target: The job that makes the target.
        artefacts: Plans models and texts.
        sources: Code and pins.
        calibrations: Plans what their probabilities mean.
    """

    def __init__(
        self,
        drafters: Mapping[str, DrafterChoice],
        target: Job,
        artefacts: Artefacts,
        sources: Sources,
        calibrations: CalibrationPlanner,
    ) -> None:
        self._drafters = drafters
        self._target = target
        self._artefacts = artefacts
        self._sources = sources
        self._calibrations = calibrations
        self._planned: dict[str, tuple[DraftSpec, dict[str, Job]]] = {}

    def drafter(self, name: str, key: str) -> tuple[DraftSpec, dict[str, Job]]:
        """The drafter called `name`, and the inputs that a decoding job needs for it.

        Args:
            name: Name in the configuration.
            key: Key of the experiment that names it, for errors.

        Raises:
            UserError: no such drafter.
        """
        if name not in self._drafters:
            raise UserError(
                f"{key}.change.drafter: {name!r} is not in dynatree.drafters ({', '.join(self._drafters)})"
            )
        if name not in self._planned:
            spec, inputs = self._plan(name)
            self._planned[name] = spec, inputs | self._calibrations.acceptance(spec, inputs)
        return self._planned[name]

    def _plan(self, name: str) -> tuple[DraftSpec, dict[str, Job]]:
        settings = self._drafters[name]
        match settings:
            case NeuralChoice():
                return NeuralDraftSpec(), {"draft": self._artefacts.model(settings.model)}
            case NgramChoice():
                return NgramDraftSpec(**settings.fields_of(NgramDraftSpec)), self._ngram(settings)
            case DistilledChoice():
                return DistilledDraftSpec(), self._distilled(name)
            case HybridChoice():
                ngram = self._drafters[settings.ngram]
                assert isinstance(ngram, NgramChoice)
                spec = HybridDraftSpec(context_weight=ngram.context_weight, **settings.fields_of(Mixture))
                return spec, self._distilled(settings.distilled) | self._ngram(ngram)
            case _:
                return settings, {}

    def _ngram(self, settings: NgramChoice) -> dict[str, Job]:
        spec = NgramSpec(**settings.fields_of(NgramSpec))
        texts = {name: self._artefacts.text(name) for name in settings.texts}
        return {"ngram": Job(FIT_NGRAM, spec, self._sources, {"model": self._target, **texts})}

    def _distilled(self, name: str) -> dict[str, Job]:
        settings = self._drafters[name]
        assert isinstance(settings, DistilledChoice)
        inputs, files = {"model": self._target}, {}
        if settings.distil.epochs:
            assert settings.teacher and settings.text
            text = self._artefacts.text(settings.text)
            read = {"model": self._target, "text": text}
            inputs["teacher"] = Job(DISTIL_TEACHER, settings.teacher, self._sources, read)
        if settings.distil.start is not None:
            key = f"dynatree.drafters.{name}.distil.start"
            start = user_path(settings.distil.start)
            files["start"] = content_hash(start, key, self._sources.hashes.sha256)
        return {"distilled": Job(DISTIL, settings.distil, self._sources, inputs, files)}
