"""The DynaTree experiments of a study as jobs."""

from collections.abc import Iterator

from ablations.study.config import DecodingBudget, DynatreeBaseline, StudyConfig
from ablations.study.contracts.dynatree import (
    DecodeSpec,
    NeuralDraftSpec,
    NgramDrafter,
    NgramDraftSpec,
    NgramSpec,
    PromptSet,
)
from ablations.study.errors import UserError
from ablations.study.planning.artefacts import Artefacts
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.rows import Row, ablation_row
from ablations.study.planning.stages import DECODE, FIT_NGRAM
from ablations.study.validation import changed, selected


class DynatreePlanner:
    """Plans each decoding experiment."""

    def __init__(self, config: StudyConfig, artefacts: Artefacts, sources: Sources) -> None:
        self._config = config.dynatree
        self._artefacts = artefacts
        self._sources = sources
        self._target = artefacts.model(config.dynatree.target)

    def rows(self) -> Iterator[Row]:
        """Each experiment with the job that measures it."""
        config = self._config
        for name, ablation in selected(config.ablations, config.only).items():
            key = f"dynatree.ablations.{name}"
            job = self._decode(changed(config.baseline, ablation, key), ablation.budget, key)
            budget = ablation.budget.model_dump() if ablation.budget else {}
            yield ablation_row("dynatree", name, ablation, (job,), ablation.versus, budget)

    def _decode(self, components: DynatreeBaseline, budget: DecodingBudget | None, key: str) -> Job:
        config = self._config
        inputs = {"model": self._target}
        drafts = components.drafter is not None
        drafter = None
        if drafts:
            drafter, extra = self._drafter(components.drafter, key)
            inputs |= extra
        prompts = []
        for kind, settings in config.prompts.items():
            inputs[settings.text] = self._artefacts.text(settings.text)
            count = min(settings.count, budget.prompts) if budget else settings.count
            prompts.append(
                PromptSet(
                    kind=kind, text=settings.text, split=settings.split, count=count, tokens=settings.tokens
                )
            )
        spec = DecodeSpec(
            drafter=drafter,
            shape=components.shape if drafts else None,
            pruning=components.pruning if drafts else None,
            reference="autoregressive" if drafts else "generate",
            prompts=tuple(prompts),
            new_tokens=config.decoding.new_tokens,
            repeats=config.decoding.repeats,
            warmup=config.decoding.warmup,
            compute=config.decoding.compute,
        )
        return Job(DECODE, spec, self._sources, inputs)

    def _drafter(self, name: str, key: str) -> tuple[NgramDraftSpec | NeuralDraftSpec, dict[str, Job]]:
        if name not in self._config.drafters:
            raise UserError(
                f"{key}.change.drafter: '{name}' is not in dynatree.drafters"
                f" ({', '.join(self._config.drafters)})"
            )
        settings = self._config.drafters[name]
        if not isinstance(settings, NgramDrafter):
            return NeuralDraftSpec(), {"draft": self._artefacts.model(settings.model)}
        counts = Job(
            FIT_NGRAM,
            NgramSpec(order=settings.order),
            self._sources,
            {"model": self._target, "text": self._artefacts.text(settings.text)},
        )
        return NgramDraftSpec(context_weight=settings.context_weight), {"ngram": counts}
