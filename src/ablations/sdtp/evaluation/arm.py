"""An arm: a model, what it prunes, and where its scores come from."""

import copy
from dataclasses import dataclass

from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.core.job import Run
from ablations.core.record import read_contract
from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.cost import planned_rows, prefill_flops
from ablations.sdtp.pruned.matching import matched
from ablations.sdtp.pruned.prefill import Prefilled, prefill
from ablations.sdtp.pruned.pruning import CALIBRATION_FILE, Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.importance import Importance
from ablations.sdtp.scores.table import read_saliency
from ablations.sdtp.scores.trained import open_pruner
from ablations.specs.sdtp.calibrate import Calibration
from ablations.specs.sdtp.counts import require_layers
from ablations.specs.sdtp.evaluate import EvaluateSpec, Training
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

    def prefill(self, ids: Tensor, number: int, cache: StaticCache) -> Prefilled:
        """Prefill a prompt into the emptied cache; `number` counts the evaluated prompts."""
        cache.truncate(0)
        return prefill(self.lm, ids, cache, self.pruning, self.importance.scorer(ids, number))

    def flops(self, tokens: int, rows: tuple[int, ...], scored: tuple[int, ...]) -> int:
        """Floating-point operations of a prefill, scoring included.

        Args:
            tokens: Tokens of the prompt.
            rows: Rows that each layer ran on.
            scored: Candidates of each stage.
        """
        return prefill_flops(self.lm, rows) + self.importance.flops(tokens, scored)


def load_arm(run: Run[EvaluateSpec], lm: LayeredLM) -> PrunedArm:
    """The arm that a spec describes, from the artefacts of its run.

    Args:
        run: An evaluation.
        lm: Its model, before its weights are packed: what needs gradients takes a copy of it.

    Raises:
        UserError: an artefact is missing, corrupt or made for something else, or the model lacks a
            layer.
    """
    spec = run.spec
    require_layers(spec.layers, lm.num_layers)
    scores, training = _importance(run, lm)
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
    tokens = spec.windows.prompt_tokens

    def flops(candidate: Pruning) -> int:
        rows, scored = planned_rows(candidate, tokens, lm.num_layers)
        return prefill_flops(lm, rows) + scores.flops(tokens, scored)

    return PrunedArm(lm, matched(pruning, spec.match, flops), scores, training, calibration)


def _importance(run: Run[EvaluateSpec], lm: LayeredLM) -> tuple[Importance, Training | None]:
    spec = run.spec
    match spec.importance:
        case "learned":
            pruner, trained, manifest = open_pruner(run.job.path("pruner"), spec.layers, lm.device)
            training = Training(
                pruner=trained,
                saliency=SaliencySpec.model_validate(manifest.facts["saliency"]),
                ranking=manifest.facts["ranking"],
                ranking_untrained=manifest.facts["ranking_untrained"],
                seconds=manifest.facts["seconds"],
            )
            return importance.learned(lm, pruner), training
        case "saliency":
            # Packed linear layers have no gradient.
            _require_saliency(spec, spec.saliency.target, lm)
            stock = LayeredLM(copy.deepcopy(lm.model)) if lm.device.type == "cpu" else lm
            return importance.saliency(stock, spec.layers, spec.saliency), None
        case "prior":
            table = read_saliency(run.job.path("saliency"), spec.layers)
            _require_saliency(spec, table.spec.target, lm)
            return importance.prior(table, lm.device), None
        case "random":
            return importance.random(spec.seed), None
        case "recent":
            return importance.recent(), None
        case "hidden_norm":
            return importance.hidden_norm(), None


def _require_saliency(spec: EvaluateSpec, target: SaliencyTarget, lm: LayeredLM) -> None:
    why = "nothing could be chosen by it"
    require_saliency(target, spec.layers, lm.num_layers, "saliency.measure", why)
