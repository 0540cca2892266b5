"""The SDTP experiments of a study as jobs."""

from collections.abc import Iterator

from ablations.study.config import Schedule, SdtpBaseline, StudyConfig
from ablations.study.contracts.paper import Experiment
from ablations.study.contracts.sdtp import EvaluateSpec, PrunerSpec, ReferenceSpec, SaliencySpec, Windows
from ablations.study.errors import UserError
from ablations.study.planning.artefacts import Artefacts
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.rows import Row, ablation_row
from ablations.study.planning.stages import EVALUATE_SDTP, REFERENCE, SALIENCY, TRAIN_PRUNER
from ablations.study.validation import BASELINE, changed, selected


class SdtpPlanner:
    """Plans the baseline and each ablation of SDTP."""

    def __init__(self, config: StudyConfig, artefacts: Artefacts, sources: Sources) -> None:
        self._seed = config.seed
        self._config = config.sdtp
        self._model_layers = config.models[config.sdtp.model].layers
        self._model = artefacts.model(config.sdtp.model)
        self._text = artefacts.text(config.sdtp.text)
        self._sources = sources
        self._baseline_layers = self._layers(config.sdtp.baseline.schedule, "sdtp.baseline")
        evaluation = config.sdtp.evaluation
        if evaluation.timing.documents > evaluation.documents:
            raise UserError(
                f"sdtp.evaluation.timing.documents: {evaluation.timing.documents} timed documents, but only"
                f" {evaluation.documents} are evaluated (sdtp.evaluation.documents)"
            )
        self._windows = Windows(
            documents=evaluation.documents,
            prompt_tokens=evaluation.prompt_tokens,
            continuation_tokens=evaluation.continuation_tokens,
        )

    def rows(self) -> Iterator[Row]:
        """Each experiment with the job that measures it, the baseline first."""
        config = self._config
        job = self._evaluate(config.baseline, "sdtp.baseline")
        baseline = Experiment(
            id=BASELINE,
            method="sdtp",
            title="Baseline",
            section="baseline",
            change={},
            versus=None,
            record=str(job.path),
        )
        yield Row(baseline, job)
        for name, ablation in selected(config.ablations, config.only).items():
            key = f"sdtp.ablations.{name}"
            job = self._evaluate(changed(config.baseline, ablation, key), key)
            yield ablation_row("sdtp", name, ablation, job, ablation.versus or BASELINE, {})

    def _layers(self, schedule: Schedule, key: str) -> tuple[int, ...]:
        """Explicit pruning layers of a schedule."""
        total = self._model_layers
        if schedule.layers is not None:
            layers = tuple(sorted(set(schedule.layers)))
            if layers[-1] >= total:
                raise UserError(
                    f"{key}.schedule.layers: layer {layers[-1]} is out of range;"
                    f" '{self._config.model}' has layers 0 to {total - 1}"
                )
            return layers
        first, stages = schedule.first_layer, schedule.stages
        if first + stages > total:
            raise UserError(
                f"{key}.schedule.stages: {stages} stages from layer {first} do not fit;"
                f" '{self._config.model}' has layers 0 to {total - 1}"
            )
        if stages == 1:
            return (first,)
        step = (total - 1 - first) / (stages - 1)
        return tuple(round(first + step * stage) for stage in range(stages))

    def _evaluate(self, components: SdtpBaseline, key: str) -> Job:
        schedule = components.schedule
        layers = self._layers(schedule, key)
        ratio = schedule.keep_ratio
        if schedule.scope == "total":
            ratio = ratio ** (1 / len(layers))
        evaluation = self._config.evaluation
        protected = components.preserve.head + components.preserve.tail
        if evaluation.prompt_tokens <= protected:
            raise UserError(
                f"sdtp.evaluation.prompt_tokens: a prompt of {evaluation.prompt_tokens} tokens is all"
                f" protected ({key}.preserve keeps {protected});"
                " make it longer"
            )
        inputs = {"model": self._model, "text": self._text, "reference": self._reference()}
        if components.importance == "learned":
            inputs["pruner"] = self._pruner(components, layers)
        spec = EvaluateSpec(
            importance=components.importance,
            layers=layers,
            keep_ratios=(ratio,) * len(layers),
            preserve=components.preserve,
            positions=components.positions,
            mask=components.mask,
            propagation=components.propagation,
            selection=components.selection,
            windows=self._windows,
            timing=evaluation.timing,
            seed=self._seed,
            compute=evaluation.compute,
        )
        return Job(EVALUATE_SDTP, spec, self._sources, inputs)

    def _reference(self) -> Job:
        spec = ReferenceSpec(windows=self._windows, compute=self._config.evaluation.compute)
        return Job(REFERENCE, spec, self._sources, {"model": self._model, "text": self._text})

    def _pruner(self, components: SdtpBaseline, layers: tuple[int, ...]) -> Job:
        """The pruner an arm loads: the baseline's own wherever it has a scorer for each layer."""
        if set(layers) <= set(self._baseline_layers):
            layers = self._baseline_layers
        settings = self._config.saliency
        saliency = Job(
            SALIENCY,
            SaliencySpec(
                layers=layers,
                measure=settings.measure,
                documents=settings.documents,
                validation_documents=settings.validation_documents,
                tokens=settings.tokens,
                continuation_tokens=settings.continuation_tokens,
                compute=settings.compute,
            ),
            self._sources,
            {"model": self._model, "text": self._text},
        )
        training = self._config.training
        spec = PrunerSpec(
            layers=layers,
            losses=components.losses,
            keep_ratios=(training.keep_ratio,) * len(layers),
            # Trained once with the baseline's protection: what an arm protects is an inference setting.
            preserve=self._config.baseline.preserve,
            width=training.width,
            epochs=training.epochs,
            batch=training.batch,
            learning_rate=training.learning_rate,
            temperature=training.temperature,
            seed=self._seed,
            compute=training.compute,
        )
        return Job(TRAIN_PRUNER, spec, self._sources, {"model": self._model, "saliency": saliency})
