"""Prefill with pruning: from each pruning layer on, a prompt is what its stages left of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.living import Living, Scorer, begin
from ablations.sdtp.pruned.pruning import DENSE, Pruning


@dataclass(frozen=True)
class Prefilled:
    """What a prefill leaves behind.

    Attributes:
        logits: ``[vocabulary]``, of the last kept token (the last prompt token, unless it was dropped).
        state: ``[hidden]``, that token's state after the last layer, before the final norm.
        kept: ``[kept]`` int64, ascending prompt indices that survived every stage.
        position_offsets: Per layer, the RoPE index of a later row less the rows that the layer has cached
            (`Living.position_offsets`): layers hold different numbers of survivors, and each goes on after
            its own.
        scored: Candidates that each stage scored.
        weights: Soft mask alone: per layer ``[tokens]`` float32, what later tokens see the prompt's with.
    """

    logits: Tensor
    state: Tensor
    kept: Tensor
    position_offsets: Mapping[int, int]
    scored: tuple[int, ...] = ()
    weights: tuple[Tensor, ...] | None = None


def no_scores(stage: int, states: Tensor, indices: Tensor) -> Tensor:
    """The scorer of a dense prefill, which is never asked."""
    raise AssertionError("a dense prefill has no stages")


def run_layers(living: Living, layers: Iterable[int], scorer: Scorer, cache: StaticCache | None) -> None:
    """Run some consecutive layers, each after the stage at its input, if one is left to do there.

    Args:
        living: The prompt at the input of the first of them; it moves on.
        layers: Ascending layers.
        scorer: Importance of the candidates, asked once per stage.
        cache: Takes keys and values; None keeps none.
    """
    stage_layers = living.pruning.layers
    for layer in layers:
        # A rank of a pipeline may find the stage at its first layer done by the rank before it.
        if living.stages < len(stage_layers) and stage_layers[living.stages] == layer:
            living.prune(scorer)
        living.layer(layer, cache)


def finish(living: Living) -> Prefilled:
    """What is left after the last layer."""
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
        cache: Empty cache, takes keys and values of what each layer saw.
        pruning: Where and how much to prune.
        scorer: Importance of the candidates, asked once per stage.
    """
    living = begin(lm, pruning, ids)
    run_layers(living, range(lm.num_layers), scorer, cache)
    return finish(living)
