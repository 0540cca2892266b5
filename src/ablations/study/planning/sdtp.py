"""The SDTP experiments of a study as jobs."""

from collections.abc import Iterator
from typing import cast

from ablations.evidence.expectations import Experiment
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.evaluate import (
    Match,
    PasskeyPrompts,
    PrefillSeries,
    PromptSaliency,
    PrunedSeries,
    PruningComponents,
    RetrievalSeries,
    TextSeries,
)
from ablations.specs.sdtp.record import EvaluateSpec, Windows
from ablations.specs.sdtp.saliency import SaliencySpec, SaliencyTarget, SaliencyWindows, require_saliency
from ablations.specs.sdtp.sweep import SweepSpec, SweepTiming
from ablations.specs.sdtp.timing import TimedRounds
from ablations.specs.sdtp.train import PrunerSpec, PrunerTraining, require_choice
from ablations.study.config.changes import BASELINE, require_isolated, resolved, selected
from ablations.study.config.sdtp import SdtpBaseline, SdtpConfig
from ablations.study.config.study import StudyConfig
from ablations.study.planning.jobs import Artefacts, Job, Row, Sources, ablation_row, configured_by
from ablations.study.planning.schedule import pruning_layers, stage_ratios
from ablations.study.planning.stages import (
    CALIBRATE,
    EVALUATE_PIPELINE,
    EVALUATE_SDTP,
    JOIN,
    SALIENCY,
    SWEEP,
    TRAIN_PRUNER,
)


class PrunerPlanner:
    """Plans the artefacts that scores come from, shared wherever they are the same.

    Args:
        config: The SDTP half of a study.
        model_layers: Layers of its model.
        baseline_layers: Pruning layers of its baseline.
        inputs: The jobs that make `model` and `text`.
        learned: The job that makes the text that saliency is of.
        sources: Code and pins.
    """

    def __init__(
        self,
        config: SdtpConfig,
        model_layers: int,
        baseline_layers: tuple[int, ...],
        inputs: dict[str, Job],
        learned: Job,
        sources: Sources,
    ) -> None:
        self._config = config
        self._model_layers = model_layers
        self._baseline_layers = baseline_layers
        self._inputs = inputs
        self._learned = learned
        self._sources = sources
        self._saliencies: dict[tuple, Job] = {}
        self._pruners: dict[tuple, Job] = {}

    def saliency(self, components: SdtpBaseline) -> Job:
        """Saliency at an arm's layers."""
        key = (self._layers(components), components.saliency)
        if key not in self._saliencies:
            self._saliencies[key] = self._saliency(*key)
        return self._saliencies[key]

    def job(self, components: SdtpBaseline, seed: int) -> Job:
        """The pruner an arm loads.

        Raises:
            UserError: a stage of its training would have nothing to drop.
        """
        ratio = components.schedule.trained_keep_ratio or self._config.training.keep_ratio
        key = (self._layers(components), components.saliency, components.losses, ratio, seed)
        if key not in self._pruners:
            self._pruners[key] = self._pruner(components, ratio, seed)
        return self._pruners[key]

    def _saliency(self, layers: tuple[int, ...], target: SaliencyTarget) -> Job:
        windows = self._config.saliency.fields_of(SaliencyWindows)
        spec = SaliencySpec(layers=layers, target=target, **windows)
        return Job(SALIENCY, spec, self._sources, {**self._inputs, "text": self._learned})

    def _pruner(self, components: SdtpBaseline, ratio: float, seed: int) -> Job:
        layers = self._layers(components)
        spec = PrunerSpec(
            layers=layers,
            losses=components.losses,
            keep_ratios=(ratio,) * len(layers),
            # Trained once with the baseline's protection: what an arm protects is an inference setting.
            preserve=self._config.baseline.preserve,
            seed=seed,
            **self._config.training.fields_of(PrunerTraining),
        )
        saliency = self.saliency(components)
        require_choice(spec, cast(SaliencySpec, saliency.spec), "sdtp.")
        inputs = {"model": self._inputs["model"], "saliency": saliency}
        return Job(TRAIN_PRUNER, spec, self._sources, inputs)

    def calibration(
        self, components: SdtpBaseline, layers: tuple[int, ...], ratios: tuple[float, ...], seed: int
    ) -> Job:
        """The numbers with which an arm's selection rule keeps as much as top-k."""
        evaluation = self._config.evaluation
        spec = CalibrationSpec(
            selection=components.selection,
            layers=layers,
            keep_ratios=ratios,
            preserve=components.preserve,
            documents=evaluation.calibration_documents,
            tokens=evaluation.prompt_tokens,
            compute=evaluation.compute,
        )
        inputs = {**self._inputs, "pruner": self.job(components, seed)}
        return Job(CALIBRATE, spec, self._sources, inputs)

    def _layers(self, components: SdtpBaseline) -> tuple[int, ...]:
        """Layers that get a scorer: the baseline's own wherever they hold all that the arm needs."""
        layers = pruning_layers(components.schedule, self._model_layers, self._config.model, "sdtp")
        return self._baseline_layers if set(layers) <= set(self._baseline_layers) else layers


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
        self._windows = Windows(**config.sdtp.evaluation.fields_of(Windows))

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
                    preserve=baseline.preserve,
                    tokens=tokens,
                    compute=self._config.evaluation.compute,
                    **sweep.fields_of(SweepTiming),
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
        seeds = self._config.seeds
        if components.importance not in _SEEDED or components.pipeline is not None:
            # Ranks are about time and traffic, and the baseline has the seeds already.
            seeds = seeds[:1]
        return tuple(self._evaluate(components, key, seed) for seed in seeds)

    def _evaluate(self, components: SdtpBaseline, key: str, seed: int) -> Job:
        evaluation = self._config.evaluation
        layers = self._layers(components, key)
        ratios = stage_ratios(components.schedule, len(layers))
        last = self._config.saliency.continuation_tokens
        own_saliency = PromptSaliency(
            measure=components.saliency.measure,
            loss_tokens=last if components.saliency.loss == "continuation" else None,
        )
        elsewhere = {
            "saliency.loss_tokens": "sdtp.saliency.continuation_tokens",
            "match": f"{key}.schedule.match",
            "timing": "sdtp.evaluation.timing",
        }
        with configured_by(key, elsewhere):
            spec = EvaluateSpec(
                layers=layers,
                keep_ratios=ratios,
                match=self._match(components),
                saliency=own_saliency if components.importance == "saliency" else None,
                windows=self._windows,
                retrieval=evaluation.retrieval if components.pipeline is None else None,
                timing=evaluation.timing if seed == self._config.seeds[0] else None,
                # A learned arm differs by its pruner alone.
                seed=seed if components.importance == "random" else 0,
                compute=evaluation.compute,
                **components.fields_of(PruningComponents),
            )
            series = _series(spec)
        inputs = {**self._inputs}
        if components.importance == "learned":
            inputs["pruner"] = self._pruners.job(components, seed)
        if components.importance == "prior":
            inputs["saliency"] = self._pruners.saliency(components)
        if components.selection != "top_k":
            inputs["calibration"] = self._pruners.calibration(components, layers, ratios, seed)
        self._require_saliency(components, layers, key)
        stage = EVALUATE_SDTP if components.pipeline is None else EVALUATE_PIPELINE
        measured = {
            measure: Job(stage, part, self._sources, inputs, count=count)
            for measure, (part, count) in series.items()
        }
        return Job(JOIN, spec, self._sources, measured)

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

    def _match(self, components: SdtpBaseline) -> Match | None:
        """The baseline as something to match."""
        if components.schedule.match is None:
            return None
        baseline = self._config.baseline
        return Match(
            quantity=components.schedule.match,
            layers=self._baseline_layers,
            keep_ratios=stage_ratios(baseline.schedule, len(self._baseline_layers)),
            preserve=baseline.preserve,
        )


def _series(spec: EvaluateSpec) -> dict[str, tuple[PrunedSeries, int]]:
    """The series of an experiment by their measure, and how many items of each are wanted."""
    shared = {name: getattr(spec, name) for name in PrunedSeries.model_fields if name != "prompt_tokens"}
    prompt, continuation = spec.windows.prompt_tokens, spec.windows.continuation_tokens
    windows = {"prompt_tokens": prompt, "continuation_tokens": continuation}
    series: dict[str, tuple[PrunedSeries, int]] = {
        "text": (TextSeries(**shared, **windows), spec.windows.documents)
    }
    if spec.retrieval is not None:
        prompts = PasskeyPrompts(**spec.retrieval.fields_of(PasskeyPrompts))
        retrieval = RetrievalSeries(**shared, prompt_tokens=prompt, prompts=prompts)
        series["retrieval"] = (retrieval, spec.retrieval.count)
    if spec.timing is not None:
        rounds = spec.timing.fields_of(TimedRounds)
        series["prefill"] = (PrefillSeries(**shared, **windows, **rounds), spec.timing.documents)
    return series
