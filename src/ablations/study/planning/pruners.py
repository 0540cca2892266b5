"""What SDTP experiments are given besides model and text: saliency, pruners, calibrated selection rules."""

from typing import cast

from ablations.study.config.sdtp import SdtpBaseline, SdtpConfig
from ablations.study.contracts.sdtp import (
    CalibrationSpec,
    PrunerSpec,
    SaliencySpec,
    SaliencyTarget,
    require_choice,
)
from ablations.study.planning.jobs import Job, Sources
from ablations.study.planning.schedule import pruning_layers
from ablations.study.planning.stages import CALIBRATE, SALIENCY, TRAIN_PRUNER


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
        settings = self._config.saliency
        spec = SaliencySpec(
            layers=layers,
            target=target,
            documents=settings.documents,
            heldout_documents=settings.heldout_documents,
            tokens=settings.tokens,
            continuation_tokens=settings.continuation_tokens,
            compute=settings.compute,
        )
        return Job(SALIENCY, spec, self._sources, {**self._inputs, "text": self._learned})

    def _pruner(self, components: SdtpBaseline, ratio: float, seed: int) -> Job:
        training = self._config.training
        layers = self._layers(components)
        spec = PrunerSpec(
            layers=layers,
            losses=components.losses,
            keep_ratios=(ratio,) * len(layers),
            # Trained once with the baseline's protection: what an arm protects is an inference setting.
            preserve=self._config.baseline.preserve,
            width=training.width,
            warmup_epochs=training.warmup_epochs,
            epochs=training.epochs,
            batch=training.batch,
            learning_rate=training.learning_rate,
            temperature=training.temperature,
            seed=seed,
            compute=training.compute,
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
