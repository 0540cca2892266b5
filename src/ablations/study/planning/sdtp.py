"""The SDTP experiments of a study as jobs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from ablations.core.errors import UserError
from ablations.evidence.expectations import Expectation, Experiment
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.evaluate import (
    BY_GRADIENT,
    CHEAP,
    TRAINED,
    Match,
    PrefillSeries,
    PromptSaliency,
    PrunedSeries,
    PruningComponents,
    RetrievalSeries,
    TextSeries,
)
from ablations.specs.sdtp.record import EvaluateSpec, Windows
from ablations.specs.sdtp.retrieval import Retrieval, RetrievalPrompts
from ablations.specs.sdtp.saliency import SaliencySpec, SaliencyTarget, SaliencyWindows, require_saliency
from ablations.specs.sdtp.sweep import SweepSpec, SweepTiming
from ablations.specs.sdtp.timing import TimedRounds
from ablations.specs.sdtp.train import PrunerSpec, PrunerTraining, require_choice
from ablations.study.config.changes import BASELINE, require_isolated, resolved, selected
from ablations.study.config.sdtp import SdtpBaseline, SdtpConfig
from ablations.study.config.study import StudyConfig
from ablations.study.planning.extension import Extension
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


class SdtpPlanner:
    """Plans the baseline and each ablation of SDTP."""

    def __init__(
        self, config: StudyConfig, artefacts: Artefacts, sources: Sources, extension: Extension
    ) -> None:
        self._config = config.sdtp
        self._extension = extension
        self._confirmatory = config.paper.confirmatory.sdtp
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
        timed = config.baseline.importance != "oracle"
        jobs = self._evaluations(config.baseline, "sdtp.baseline", whole=True, timed=timed)
        baseline = Experiment(
            id=BASELINE,
            method="sdtp",
            title="Baseline",
            section="baseline",
            change={},
            versus=None,
            records=tuple(str(job.path) for job in jobs),
            seeds=self._training_seeds(config.baseline, jobs),
        )
        yield Row(baseline, jobs)
        chosen = selected(config.ablations, config.only)
        arms = resolved("sdtp", config.baseline, chosen)
        # What a confirmatory experiment is compared with has as much to be paired with.
        whole = {*self._confirmatory, *(arms[name].versus for name in self._confirmatory)}
        for name, ablation in chosen.items():
            components, key = arms[name].components, f"sdtp.ablations.{name}"
            timed = self._takes_its_own_time(components)
            jobs = self._evaluations(components, f"{key}.change", whole=name in whole, timed=timed)
            row = ablation_row("sdtp", name, ablation, arms[name], jobs, {})
            expect = _of_what_is_measured(ablation.expect, cast(EvaluateSpec, jobs[0].spec), key)
            seeds = self._training_seeds(components, jobs)
            yield Row(row.experiment.model_copy(update={"expect": expect, "seeds": seeds}), jobs)
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

    def _evaluations(
        self, components: SdtpBaseline, key: str, *, whole: bool, timed: bool
    ) -> tuple[Job, ...]:
        """An experiment's jobs, one per training seed.

        Args:
            components: Its components.
            key: Their key in the configuration, for errors.
            whole: Whether it has the whole budget of documents, prompts and seeds.
            timed: Whether its prefill is timed, on the first seed.
        """
        seeds = self._config.seeds
        if not (whole and self._trains_as_no_other(components)):
            seeds = seeds[:1]
        return tuple(
            self._evaluate(components, key, seed, whole, timed and seed == seeds[0]) for seed in seeds
        )

    def _trains_as_no_other(self, components: SdtpBaseline) -> bool:
        """Whether it is the baseline, or its scorer is trained in another way than the baseline's."""
        baseline, first = self._config.baseline, self._config.seeds[0]
        if components.importance not in TRAINED:
            return False
        if components == baseline or baseline.importance not in TRAINED:
            return True
        return self._pruners.job(components, first) is not self._pruners.job(baseline, first)

    def _training_seeds(self, components: SdtpBaseline, jobs: tuple[Job, ...]) -> tuple[int, ...]:
        """Seeds that the scorers of an experiment's jobs were trained with; none without a scorer."""
        return self._config.seeds[: len(jobs)] if components.importance in TRAINED else ()

    def _takes_its_own_time(self, components: SdtpBaseline) -> bool:
        """Whether an arm differs from the baseline in more than cheap scores, so that it runs other kernels.

        The oracle is never timed: its scores come from what follows the prompt.
        """
        baseline = self._config.baseline
        alike: dict[str, Any] = {"losses": baseline.losses, "saliency": baseline.saliency}
        if components.importance in CHEAP and baseline.importance in CHEAP:
            alike["importance"] = baseline.importance
        ratio = baseline.schedule.trained_keep_ratio
        alike["schedule"] = components.schedule.model_copy(update={"trained_keep_ratio": ratio})
        return components.importance != "oracle" and components.model_copy(update=alike) != baseline

    def _evaluate(self, components: SdtpBaseline, key: str, seed: int, whole: bool, timed: bool) -> Job:
        evaluation = self._config.evaluation
        layers = self._layers(components, key)
        ratios = stage_ratios(components.schedule, len(layers))
        last = self._config.saliency.continuation_tokens
        own_saliency = PromptSaliency(
            measure=components.saliency.measure,
            # The oracle's is of what follows the prompt.
            loss_tokens=None
            if components.importance == "oracle" or components.saliency.loss == "window"
            else last,
        )
        windows, retrieval = self._budget(whole)
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
                saliency=own_saliency if components.importance in BY_GRADIENT else None,
                windows=windows,
                retrieval=retrieval if components.pipeline is None else None,
                timing=evaluation.timing if timed else None,
                # A learned arm differs by its pruner alone.
                seed=seed if components.importance == "random" else 0,
                compute=evaluation.compute,
                **components.fields_of(PruningComponents),
            )
            series = _series(spec)
        inputs = {**self._inputs}
        if components.importance in TRAINED:
            inputs["pruner"] = self._pruners.job(components, seed)
        if components.importance == "prior":
            inputs["saliency"] = self._pruners.saliency(components)
        if components.selection != "top_k":
            inputs["calibration"] = self._pruners.calibration(components, layers, ratios, seed)
        self._require_saliency(components, layers, key)
        stage = EVALUATE_SDTP if components.pipeline is None else EVALUATE_PIPELINE
        measured = {
            measure: self._extended(Job(stage, part, self._sources, inputs, count=count))
            for measure, (part, count) in series.items()
        }
        return Job(JOIN, _of_items(spec, measured), self._sources, measured)

    def _extended(self, series: Job) -> Job:
        """A series with the items that are wanted of it, at the planned look or a later one."""
        return replace(series, count=self._extension.items(series.digest, cast(int, series.count)))

    def _budget(self, whole: bool) -> tuple[Windows, Retrieval | None]:
        """Windows and retrieval prompts of an experiment with the whole budget, or an exploratory one's."""
        retrieval, exploratory = self._config.evaluation.retrieval, self._config.evaluation.exploratory
        if whole or exploratory is None:
            return self._windows, retrieval
        windows = self._windows.model_copy(update={"documents": exploratory.documents})
        return windows, retrieval and retrieval.model_copy(update={"count": exploratory.prompts})

    def _require_saliency(self, components: SdtpBaseline, layers: tuple[int, ...], key: str) -> None:
        """Check that each stage has a saliency where scores come from nothing else.

        Raises:
            UserError: the one at the last layer has none.
        """
        target = components.saliency
        if components.importance == "oracle":
            # Its last stage takes the saliency of the stage before where it has none of its own.
            why, layers = "nothing could be chosen by it", layers[:1]
            target = target.model_copy(update={"loss": "continuation"})
        elif components.importance in ("saliency", "prior"):
            why = "nothing could be chosen by it"
        elif components.importance in TRAINED and not components.losses.lm:
            why = "without an LM loss (losses.lm) its scorer would learn nothing"
        else:
            return
        require_saliency(target, layers, self._model_layers, f"{key}.saliency.measure", why)

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


def _of_what_is_measured(expect: Expectation, spec: EvaluateSpec, key: str) -> Expectation:
    """Predictions of an experiment; without retrieval, those of quality are of text alone.

    Raises:
        UserError: one is of retrieval, which is not measured.
    """
    if spec.retrieval is not None or expect.quality == "crash":
        return expect
    if expect.retrieval is not None:
        why = "sdtp.evaluation.retrieval is null" if spec.pipeline is None else "not over pipeline ranks"
        raise UserError(f"{key}.expect.retrieval: retrieval is not measured ({why}); leave it out")
    return expect.model_copy(update={"quality": None, "text": expect.text or expect.quality})


def _of_items(spec: EvaluateSpec, series: Mapping[str, Job]) -> EvaluateSpec:
    """The spec of a record of so many items of its series."""
    windows = spec.windows.model_copy(update={"documents": series["text"].count})
    retrieval = spec.retrieval and spec.retrieval.model_copy(update={"count": series["retrieval"].count})
    return spec.model_copy(update={"windows": windows, "retrieval": retrieval})


def _series(spec: EvaluateSpec) -> dict[str, tuple[PrunedSeries, int]]:
    """The series of an experiment by their measure, and how many items of each are wanted."""
    shared = {name: getattr(spec, name) for name in PrunedSeries.model_fields if name != "prompt_tokens"}
    prompt, continuation = spec.windows.prompt_tokens, spec.windows.continuation_tokens
    windows = {"prompt_tokens": prompt, "continuation_tokens": continuation}
    series: dict[str, tuple[PrunedSeries, int]] = {
        "text": (TextSeries(**shared, **windows), spec.windows.documents)
    }
    if spec.retrieval is not None:
        prompts = RetrievalPrompts(**spec.retrieval.fields_of(RetrievalPrompts))
        retrieval = RetrievalSeries(**shared, prompt_tokens=prompt, prompts=prompts)
        series["retrieval"] = (retrieval, spec.retrieval.count)
    if spec.timing is not None:
        rounds = spec.timing.fields_of(TimedRounds)
        series["prefill"] = (PrefillSeries(**shared, **windows, **rounds), spec.timing.documents)
    return series
