"""Prefill with hard pruning: from each pruning layer on, only the kept tokens exist."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.selection import select, stage_counts
from ablations.study.contracts.sdtp import Preserve

Scorer = Callable[[int, Tensor], Tensor]
"""Takes a stage (from 0) and the living tokens' states ``[rows, hidden]``; returns scores ``[rows]``."""


@dataclass(frozen=True)
class Pruning:
    """Where a prefill prunes, how much, and what becomes of positions.

    Attributes:
        layers: Ascending layers at whose input a stage prunes.
        keep_ratios: Share of the living tokens that each stage keeps.
        preserve: Tokens that no stage drops.
        positions: `original` keeps each survivor's own RoPE index; `packed` renumbers the survivors from 0
            at every stage.
    """

    layers: tuple[int, ...]
    keep_ratios: tuple[float, ...]
    preserve: Preserve
    positions: Literal["original", "packed"] = "original"


DENSE = Pruning(layers=(), keep_ratios=(), preserve=Preserve(head=0, tail=0))


@dataclass(frozen=True)
class Prefilled:
    """What a prefill leaves behind.

    Attributes:
        logits: ``[vocabulary]``, of the last kept token (the last prompt token, unless it was dropped).
        state: ``[hidden]``, that token's state after the last layer, before the final norm.
        kept: ``[kept]`` int64, ascending prompt indices that survived every stage.
        next_position: RoPE index of the first token after the prompt: the prompt's length for `original`
            positions, the number of survivors for `packed`.
    """

    logits: Tensor
    state: Tensor
    kept: Tensor
    next_position: int


def no_scores(stage: int, states: Tensor) -> Tensor:
    """The scorer of a dense prefill, which is never asked."""
    raise AssertionError("a dense prefill has no stages")


def random_scores(generator: torch.Generator) -> Scorer:
    """Uniform scores, drawn anew at each stage on the generator's device."""

    def score(stage: int, states: Tensor) -> Tensor:
        return torch.rand(states.shape[0], generator=generator, device=states.device)

    return score


@torch.inference_mode()
def prefill(
    lm: LayeredLM, ids: Tensor, cache: StaticCache, pruning: Pruning = DENSE, scorer: Scorer = no_scores
) -> Prefilled:
    """Run a prompt through the model, dropping tokens on the way.

    Survivors stay in order, so plain causal attention without a mask is right at every layer, and each
    layer's cache gets as many rows as entered it. Row counts follow from lengths alone: on CUDA the host
    never waits.

    Args:
        lm: Model.
        ids: ``[tokens]`` int64 prompt, on the model's device.
        cache: Empty cache, takes keys and values.
        pruning: Where and how much to prune.
        scorer: Importance of the living tokens, asked once per stage.
    """
    tokens = ids.shape[0]
    counts = stage_counts(tokens, pruning.keep_ratios, pruning.preserve)
    stage_of = {layer: stage for stage, layer in enumerate(pruning.layers)}
    hidden = lm.embed(ids[None])
    kept = torch.arange(tokens, device=ids.device)
    cosines, sines = rotary = lm.rotary(hidden, kept[None])
    for layer in range(lm.num_layers):
        stage = stage_of.get(layer)
        if stage is not None:
            chosen = select(scorer(stage, hidden[0]), counts[stage], pruning.preserve)
            hidden = hidden[:, chosen]
            kept = kept[chosen]
            rows = kept if pruning.positions == "original" else slice(counts[stage])
            rotary = cosines[:, rows], sines[:, rows]
        hidden = lm.layer(layer, hidden, rotary, None, cache)
    next_position = tokens if pruning.positions == "original" or not counts else counts[-1]
    return Prefilled(lm.head(hidden[:, -1:])[0, 0], hidden[0, -1], kept, next_position)
