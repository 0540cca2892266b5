"""Drafters as decoding jobs see them, and the jobs that make what they draft from."""

from collections.abc import Mapping

from ablations.study.contracts.dynatree import (
    DistilledDrafter,
    DistilledDraftSpec,
    Drafter,
    DraftSpec,
    HybridDrafter,
    HybridDraftSpec,
    NeuralDrafter,
    NeuralDraftSpec,
    NgramDrafter,
    NgramDraftSpec,
    NgramSpec,
    PromptLookup,
)
from ablations.study.errors import UserError
from ablations.study.planning.artefacts import Artefacts
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.stages import DISTIL, DISTIL_TEACHER, FIT_NGRAM
from ablations.study.userfiles import content_hash, user_path


class DrafterPlanner:
    """Plans what drafters need, shared wherever it is the same.

    Args:
        drafters: Drafters by name; what they refer to is there.
        target: The job that makes the target.
        artefacts: Plans models and texts.
        sources: Code and pins.
    """

    def __init__(
        self, drafters: Mapping[str, Drafter], target: Job, artefacts: Artefacts, sources: Sources
    ) -> None:
        self._drafters = drafters
        self._target = target
        self._artefacts = artefacts
        self._sources = sources
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
            self._planned[name] = self._plan(name)
        return self._planned[name]

    def _plan(self, name: str) -> tuple[DraftSpec, dict[str, Job]]:
        settings = self._drafters[name]
        match settings:
            case PromptLookup():
                return settings, {}
            case NeuralDrafter():
                return NeuralDraftSpec(), {"draft": self._artefacts.model(settings.model)}
            case NgramDrafter():
                return NgramDraftSpec(context_weight=settings.context_weight), self._ngram(settings)
            case DistilledDrafter():
                return DistilledDraftSpec(), self._distilled(name)
            case HybridDrafter():
                ngram = self._drafters[settings.ngram]
                assert isinstance(ngram, NgramDrafter)
                spec = HybridDraftSpec(
                    share=settings.share, sure=settings.sure, context_weight=ngram.context_weight
                )
                return spec, self._distilled(settings.distilled) | self._ngram(ngram)

    def _ngram(self, settings: NgramDrafter) -> dict[str, Job]:
        spec = NgramSpec(order=settings.order, texts=settings.texts)
        texts = {name: self._artefacts.text(name) for name in settings.texts}
        return {"ngram": Job(FIT_NGRAM, spec, self._sources, {"model": self._target, **texts})}

    def _distilled(self, name: str) -> dict[str, Job]:
        settings = self._drafters[name]
        inputs = {"model": self._target, "text": self._artefacts.text(settings.text)}
        teacher = Job(DISTIL_TEACHER, settings.teacher, self._sources, inputs)
        inputs = {"model": self._target, "teacher": teacher}
        files = {}
        if settings.distil.start is not None:
            key = f"dynatree.drafters.{name}.distil.start"
            start = user_path(settings.distil.start)
            files["start"] = content_hash(start, key, self._sources.hashes.sha256)
        return {"distilled": Job(DISTIL, settings.distil, self._sources, inputs, files)}
