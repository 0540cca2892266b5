"""The unpruned model on a prompt: the reference of all arms, and what they share with it.

Below its first stage an arm computes what the unpruned model computes, from the same rows. Where it is not
timed it begins at that stage.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.living import Scorer, embed_prompt
from ablations.sdtp.pruned.prefill import Prefilled, finish, run_layers
from ablations.sdtp.pruned.pruning import DENSE, Pruning
from ablations.sdtp.scores.importance import Prompt


@dataclass(frozen=True)
class Unpruned:
    """An unpruned prefill.

    Attributes:
        prompt: The prompt.
        prefilled: Its result.
        cache: Keys and values, those of the prompt first.
        states: Per layer that was asked for, ``[1, tokens, hidden]``, its input.
    """

    prompt: Prompt
    prefilled: Prefilled
    cache: StaticCache
    states: Mapping[int, Tensor]


@torch.inference_mode()
def unpruned_prefill(
    lm: LayeredLM, prompt: Prompt, cache: StaticCache, layers: Collection[int] = ()
) -> Unpruned:
    """Prefill a prompt with the unpruned model.

    Args:
        lm: Model.
        prompt: The prompt.
        cache: Emptied first; takes keys and values.
        layers: Layers whose inputs are kept.
    """
    cache.truncate(0)
    living = embed_prompt(lm, DENSE, prompt.ids)
    states = {}
    for layer in range(lm.num_layers):
        if layer in layers:
            states[layer] = living.hidden
        living.layer(layer, cache)
    return Unpruned(prompt, finish(living), cache, states)


@torch.inference_mode()
def prefill_from(
    unpruned: Unpruned, lm: LayeredLM, cache: StaticCache, pruning: Pruning, scorer: Scorer
) -> Prefilled:
    """Prefill a prompt, pruning it on the way, from the first stage on.

    Args:
        unpruned: The same prompt's unpruned prefill, with the input of the first stage's layer.
        lm: Model.
        cache: Empty cache; takes keys and values of the rows that each layer runs on.
        pruning: Where and how much to prune.
        scorer: Importance of the candidates, called once per stage.
    """
    first, ids = pruning.layers[0], unpruned.prompt.ids
    tokens = ids.shape[0]
    living = embed_prompt(lm, pruning, ids)
    living.hidden = unpruned.states[first]
    for layer in range(first):
        keys, values = unpruned.cache.keys[layer], unpruned.cache.values[layer]
        cache.update(keys[:, :, :tokens], values[:, :, :tokens], layer)
        living.position_offsets[layer] = 0
    run_layers(living, range(first, lm.num_layers), scorer, cache)
    prefilled = finish(living)
    if prefilled.weights is None:
        return prefilled
    everything = torch.ones(tokens, device=lm.device)
    return replace(prefilled, weights=(everything,) * first + prefilled.weights)
