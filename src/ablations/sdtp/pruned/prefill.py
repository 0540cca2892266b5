"""Prefill with pruning at the inputs of given layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.living import LivingPrompt, Scorer, embed_prompt
from ablations.sdtp.pruned.pruning import DENSE, Pruning


@dataclass(frozen=True)
class Prefilled:
    """Result of a prefill.

    Attributes:
        logits: ``[vocabulary]``, of the last kept token (the last prompt token, unless it was dropped).
        state: ``[hidden]``, that token's state after the last layer, before the final norm.
        kept: ``[kept]`` int64, ascending prompt indices that survived every stage.
        position_offsets: Per layer, the RoPE index of a later row minus the layer's cached rows
            (`LivingPrompt.position_offsets`). Layers have different numbers of survivors, and each continues
            after its own.
        scored: Candidates that each stage scored.
        weights: With a soft mask, per layer ``[tokens]`` float32, the weights with which later tokens attend
            to the prompt's tokens.
    """

    logits: Tensor
    state: Tensor
    kept: Tensor
    position_offsets: Mapping[int, int]
    scored: tuple[int, ...] = ()
    weights: tuple[Tensor, ...] | None = None


def no_scores(stage: int, states: Tensor, indices: Tensor) -> Tensor:
    """The scorer of a dense prefill, which is never called."""
    raise AssertionError("a dense prefill has no stages")


def run_layers(
    living: LivingPrompt, layers: Iterable[int], scorer: Scorer, cache: StaticCache | None
) -> None:
    """Run consecutive layers, each after the stage at its input, if there is one that has not run yet.

    Args:
        living: The prompt at the input of the first layer; it is advanced in place.
        layers: Ascending layers.
        scorer: Importance of the candidates, called once per stage.
        cache: Takes keys and values; None keeps none.
    """
    stage_layers = living.pruning.layers
    for layer in layers:
        # In a pipeline the rank before may have run the stage at this rank's first layer.
        if living.stages < len(stage_layers) and stage_layers[living.stages] == layer:
            living.prune(scorer)
        living.layer(layer, cache)


def finish(living: LivingPrompt) -> Prefilled:
    """Result of the prefill, after the last layer has run."""
    state = living.state()
    return Prefilled(
        logits=living.lm.head(state[None, None])[0, 0],
        state=state,
        kept=living.kept,
        position_offsets=living.position_offsets,
        scored=tuple(living.scored),
        weights=living.weights,
    )


@torch.inference_mode()
def prefill(
    lm: LayeredLM, ids: Tensor, cache: StaticCache, pruning: Pruning = DENSE, scorer: Scorer = no_scores
) -> Prefilled:
    """Run a prompt through the model, pruning it on the way.

    Args:
        lm: Model.
        ids: ``[tokens]`` int64 prompt, on the model's device.
        cache: Empty cache; takes keys and values of the rows that each layer runs on.
        pruning: Where and how much to prune.
        scorer: Importance of the candidates, called once per stage.
    """
    living = embed_prompt(lm, pruning, ids)
    run_layers(living, range(lm.num_layers), scorer, cache)
    return finish(living)
