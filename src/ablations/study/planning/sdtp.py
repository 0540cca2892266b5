"""The SDTP experiments of a study as jobs."""

from collections.abc import Iterator
from functools import cached_property

from ablations.study.changes import BASELINE, require_isolated, resolved, selected
from ablations.study.config.sdtp import SdtpBaseline
from ablations.study.config.study import StudyConfig
from ablations.study.contracts.paper import Experiment
from ablations.study.contracts.sdtp import (
    EvaluateSpec,
    Match,
    PromptSaliency,
    ReferenceSpec,
    SweepSpec,
    Windows,
    require_saliency,
)
from ablations.study.errors import UserError
from ablations.study.planning.artefacts import Artefacts
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.pruners import PrunerPlanner
from ablations.study.planning.rows import Row, ablation_row
from ablations.study.planning.schedule import pruning_layers, stage_ratios
from ablations.study.planning.stages import EVALUATE_PIPELINE, EVALUATE_SDTP, REFERENCE, SWEEP

# Importances that differ from seed to seed: by training, or by their own draw.
_SEEDED = ("learned", "random")


class SdtpPlanner:
    """Plans the baseline and each ablation of SDTP."""

    def __init__(self, config: StudyConfig, artefacts: Artefacts, sources: Sources) -> None:
        self._config = config.sdtp
        self._model_layers = config.models[config.sdtp.model].layers
        self._sources = sources
        self._inputs = {
            "model": artefacts.model(config.sdtp.model),
            "text": artefacts.text(config.sdtp.text),
        }
        self._baseline_layers = self._layers(config.sdtp.baseline, "sdtp.baseline")
        learned = artefacts.text(config.sdtp.saliency.text or config.sdtp.text)
        self._pruners = PrunerPlanner(
            config.sdtp, self._model_layers, self._baseline_layers, self._inputs, learned, sources
        )
        evaluation = config.sdtp.evaluation
        if evaluation.timing.documents > evaluation.documents:
            raise UserError(
                f"sdtp.evaluation.timing.documents: {evaluation.timing.documents} timed documents, but only"
                f" {evaluation.documents} are evaluated (sdtp.evaluation.documents)"
            )
        if evaluation.shards > evaluation.documents:
            raise UserError(
                f"sdtp.evaluation.shards: {evaluation.shards} jobs cannot share {evaluation.documents}"
                " documents (sdtp.evaluation.documents); lower it"
            )
        self._windows = Windows(
            documents=evaluation.documents,
            prompt_tokens=evaluation.prompt_tokens,
            continuation_tokens=evaluation.continuation_tokens,
        )

    def rows(self) -> Iterator[Row]:
        """Each experiment with the jobs that measure it, the baseline first; none where `only` is empty.

        Raises:
            UserError: a change is impossible, or means nothing beside the rest of the configuration.
        """
        config = self._config
        if config.only == ():
            return
        jobs = self._evaluations(config.baseline, "sdtp.baseline")
        baseline = Experiment(
            id=BASELINE,
            method="sdtp",
            title="Baseline",
            section="baseline",
            change={},
            versus=None,
            records=tuple(str(job.path) for job in jobs),
        )
        yield Row(baseline, jobs)
        chosen = selected(config.ablations, config.only)
        arms = resolved("sdtp", config.baseline, chosen)
        for name, ablation in chosen.items():
            jobs = self._evaluations(arms[name].components, f"sdtp.ablations.{name}.change")
            yield ablation_row("sdtp", name, ablation, arms[name], jobs, {})
        require_isolated("sdtp", chosen, arms)

    def sweeps(self) -> list[Job]:
        """The baseline at each prompt length of the sweep."""
        sweep, baseline = self._config.sweep, self._config.baseline
        if sweep is None or self._config.only == ():
            return []
        inputs = {**self._inputs, "pruner": self._pruners.job(baseline, self._config.seeds[0])}
        return [
            Job(
                SWEEP,
                SweepSpec(
                    layers=self._baseline_layers,
                    keep_ratios=sweep.keep_ratios,
                    preserve=baseline.preserve,
                    tokens=tokens,
                    new_tokens=sweep.new_tokens,
                    repeats=sweep.repeats,
                    warmup=sweep.warmup,
                    beyond_positions=sweep.beyond_positions,
                    compute=self._config.evaluation.compute,
                ),
                self._sources,
                inputs,
            )
            for tokens in sweep.lengths
        ]

    def _layers(self, components: SdtpBaseline, key: str) -> tuple[int, ...]:
        return pruning_layers(components.schedule, self._model_layers, self._config.model, key)

    def _evaluations(self, components: SdtpBaseline, key: str) -> tuple[Job, ...]:
        """An experiment's jobs: one per seed where a seed plays a part, the first of them timed."""
        _require_learned(components, key)
        seeds = self._config.seeds
        if components.importance not in _SEEDED or components.pipeline is not None:
            # Ranks are about time and traffic, and the baseline has the seeds already.
            seeds = seeds[:1]
        return tuple(self._evaluate(components, key, seed) for seed in seeds)

    def _evaluate(self, components: SdtpBaseline, key: str, seed: int) -> Job:
        evaluation = self._config.evaluation
        protected = components.preserve.of(evaluation.prompt_tokens).tokens
        if evaluation.prompt_tokens <= protected:
            raise UserError(
                f"sdtp.evaluation.prompt_tokens: a prompt of {evaluation.prompt_tokens} tokens is all"
                f" protected ({key}.preserve keeps {protected}); make it longer or protect less"
            )
        layers = self._layers(components, key)
        ratios = stage_ratios(components.schedule, len(layers))
        inputs = {**self._inputs, "reference": self._reference}
        if components.importance == "learned":
            inputs["pruner"] = self._pruners.job(components, seed)
        if components.importance == "prior":
            inputs["saliency"] = self._pruners.saliency(components)
        if components.selection != "top_k":
            inputs["calibration"] = self._pruners.calibration(components, layers, ratios, seed)
        self._require_saliency(components, layers, key)
        last = self._config.saliency.continuation_tokens
        own_saliency = PromptSaliency(
            measure=components.saliency.measure,
            loss_tokens=last if components.saliency.loss == "continuation" else None,
        )
        spec = EvaluateSpec(
            importance=components.importance,
            layers=layers,
            keep_ratios=ratios,
            match=self._match(components, layers, key),
            preserve=components.preserve,
            positions=components.positions,
            mask=components.mask,
            propagation=components.propagation,
            selection=components.selection,
            saliency=own_saliency if components.importance == "saliency" else None,
            pipeline=components.pipeline,
            windows=self._windows,
            retrieval=evaluation.retrieval if components.pipeline is None else None,
            timing=evaluation.timing if seed == self._config.seeds[0] else None,
            # A learned arm differs by its pruner alone.
            seed=seed if components.importance == "random" else 0,
            compute=evaluation.compute,
        )
        stage = EVALUATE_SDTP if components.pipeline is None else EVALUATE_PIPELINE
        return Job(stage, spec, self._sources, inputs)

    def _require_saliency(self, components: SdtpBaseline, layers: tuple[int, ...], key: str) -> None:
        """Check that each stage has a saliency where scores come from nothing else.

        Raises:
            UserError: the one at the last layer has none.
        """
        if components.importance in ("saliency", "prior"):
            why = "nothing could be chosen by it"
        elif components.importance == "learned" and not components.losses.lm:
            why = "without an LM loss (losses.lm) its scorer would learn nothing"
        else:
            return
        require_saliency(components.saliency, layers, self._model_layers, f"{key}.saliency.measure", why)

    def _match(self, components: SdtpBaseline, layers: tuple[int, ...], key: str) -> Match | None:
        """The baseline as something to match."""
        schedule = components.schedule
        if schedule.match is None:
            return None
        if schedule.match == "count" and len(layers) != len(self._baseline_layers):
            raise UserError(
                f"{key}.schedule.match: 'count' needs the baseline's {len(self._baseline_layers)} stages,"
                f" not {len(layers)}; use 'flops'"
            )
        baseline = self._config.baseline
        return Match(
            quantity=schedule.match,
            layers=self._baseline_layers,
            keep_ratios=stage_ratios(baseline.schedule, len(self._baseline_layers)),
            preserve=baseline.preserve,
        )

    @cached_property
    def _reference(self) -> Job:
        evaluation = self._config.evaluation
        spec = ReferenceSpec(
            windows=self._windows, retrieval=evaluation.retrieval, compute=evaluation.compute
        )
        return Job(REFERENCE, spec, self._sources, self._inputs)


def _require_learned(components: SdtpBaseline, key: str) -> None:
    """Check that what works on a trained scorer's keep logits has one.

    Raises:
        UserError: it has not.
    """
    if components.importance == "learned":
        return
    for group, usual in (("mask", "hard"), ("selection", "top_k")):
        value = getattr(components, group)
        if value != usual:
            raise UserError(
                f"{key}.{group}: '{value}' needs the keep logits of importance 'learned',"
                f" not '{components.importance}'; use '{usual}'"
            )
