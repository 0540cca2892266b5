"""An arm: a model, what it prunes, and where its scores come from."""

import copy
from dataclasses import dataclass
from functools import cached_property

from ablations.core.artefact import open_artefact
from ablations.core.files import canonical_json
from ablations.core.job import Run
from ablations.core.record import read_contract
from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.evaluation.unpruned import Unpruned, prefill_from
from ablations.sdtp.pruned.cost import planned_rows, prefill_flops
from ablations.sdtp.pruned.matching import matched
from ablations.sdtp.pruned.prefill import Prefilled, prefill
from ablations.sdtp.pruned.pruning import CALIBRATION_FILE, Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.importance import Importance, Prompt
from ablations.sdtp.scores.table import read_saliency
from ablations.sdtp.scores.trained import open_pruner
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.evaluate import ATTENTION_WINDOW, PrunedSeries, Training
from ablations.specs.sdtp.saliency import SaliencySpec, SaliencyTarget, require_saliency


@dataclass(frozen=True)
class PrunedArm:
    """One pruning configuration on one model.

    Attributes:
        lm: Model.
        pruning: Where and how much to prune.
        importance: Where scores come from.
        training: How a learned scorer was trained.
        calibration: Numbers of a calibrated selection rule.
    """

    lm: LayeredLM
    pruning: Pruning
    importance: Importance
    training: Training | None = None
    calibration: Calibration | None = None

    def prefill(self, prompt: Prompt, cache: StaticCache) -> Prefilled:
        """Prefill a prompt into the emptied cache."""
        cache.truncate(0)
        return prefill(self.lm, prompt.ids, cache, self.pruning, self.importance.scorer(prompt))

    def prefill_from(self, unpruned: Unpruned, cache: StaticCache) -> Prefilled:
        """The same from the first stage on, with what the unpruned model computed below it."""
        cache.truncate(0)
        scorer = self.importance.scorer(unpruned.prompt)
        return prefill_from(unpruned, self.lm, cache, self.pruning, scorer)

    def flops(self, tokens: int, rows: tuple[int, ...], scored: tuple[int, ...]) -> int:
        """Floating-point operations of a prefill, scoring included.

        Args:
            tokens: Tokens of the prompt.
            rows: Rows that each layer ran on.
            scored: Candidates of each stage.
        """
        return prefill_flops(self.lm, rows) + self.importance.flops(tokens, scored)


class Arms:
    """The arms of series on one model; series of the same pruning configuration share one.

    Args:
        lm: The model, before its weights are packed: what needs gradients takes a copy of it.
    """

    def __init__(self, lm: LayeredLM) -> None:
        self._lm = lm
        self._arms: dict[str, PrunedArm] = {}

    def load(self, run: Run[PrunedSeries]) -> PrunedArm:
        """The arm that a series measures, from the artefacts of its run.

        Raises:
            UserError: an artefact is missing, corrupt or made for something else, or the model lacks a layer.
        """
        configuration = run.spec.model_dump(mode="json", include=set(PrunedSeries.model_fields))
        key = canonical_json([configuration, run.job.inputs])
        if key not in self._arms:
            self._arms[key] = self._load(run)
        return self._arms[key]

    @cached_property
    def _stock(self) -> LayeredLM:
        """The model with weights that stay as they are: packed linear layers have no gradient."""
        return LayeredLM(copy.deepcopy(self._lm.model)) if self._lm.device.type == "cpu" else self._lm

    def _load(self, run: Run[PrunedSeries]) -> PrunedArm:
        spec, lm = run.spec, self._lm
        require_layers(spec.layers, lm.num_layers)
        scores, training = self._importance(run)
        calibration = None
        if spec.selection != "top_k":
            folder, _ = open_artefact(run.job.path("calibration"))
            calibration = read_contract(folder / CALIBRATION_FILE, Calibration)
        pruning = Pruning(
            layers=spec.layers,
            keep_ratios=spec.keep_ratios,
            preserve=spec.preserve,
            positions=spec.positions,
            mask=spec.mask,
            propagation=spec.propagation,
            selection=spec.selection,
            values=calibration.values if calibration else (),
            temperature=training.pruner.temperature if training else 1.0,
        )
        tokens = spec.prompt_tokens

        def flops(candidate: Pruning) -> int:
            rows, scored = planned_rows(candidate, tokens, lm.num_layers)
            return prefill_flops(lm, rows) + scores.flops(tokens, scored)

        return PrunedArm(lm, matched(pruning, spec.match, flops), scores, training, calibration)

    def _importance(self, run: Run[PrunedSeries]) -> tuple[Importance, Training | None]:
        spec, lm = run.spec, self._lm
        match spec.importance:
            case "learned" | "learned_distance":
                pruner, trained, manifest = open_pruner(run.job.path("pruner"), spec.layers, lm.device)
                training = Training(
                    pruner=trained,
                    saliency=SaliencySpec.model_validate(manifest.facts["saliency"]),
                    ranking=manifest.facts["ranking"],
                    ranking_untrained=manifest.facts["ranking_untrained"],
                    seconds=manifest.facts["seconds"],
                )
                kind = importance.learned if spec.importance == "learned" else importance.learned_distance
                return kind(pruner), training
            case "saliency":
                loss = "window" if spec.saliency.loss_tokens is None else "continuation"
                _require_saliency(spec.layers, SaliencyTarget(measure=spec.saliency.measure, loss=loss), lm)
                return importance.saliency(self._stock, spec.layers, spec.saliency), None
            case "oracle":
                measure = spec.saliency.measure
                target = SaliencyTarget(measure=measure, loss="continuation")
                _require_saliency(spec.layers[:1], target, lm)
                return importance.oracle(self._stock, spec.layers, measure), None
            case "attention_last" | "attention_window":
                window = 1 if spec.importance == "attention_last" else ATTENTION_WINDOW
                return importance.attention(lm, spec.layers, window, spec.positions), None
            case "prior":
                table = read_saliency(run.job.path("saliency"), spec.layers)
                _require_saliency(spec.layers, table.spec.target, lm)
                return importance.prior(table, lm.device), None
            case "random":
                return importance.random(spec.seed), None
            case "recent":
                return importance.recent(), None
            case "hidden_norm":
                return importance.hidden_norm(), None


def _require_saliency(layers: tuple[int, ...], target: SaliencyTarget, lm: LayeredLM) -> None:
    require_saliency(target, layers, lm.num_layers, "saliency.measure", "nothing could be chosen by it")
