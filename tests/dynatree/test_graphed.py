"""Decoding on graphed caches (here not captured) emits the tokens of decoding on plain caches."""

import pytest
import torch

from ablations.dynatree.decoding import Draft, decode_autoregressive, decode_speculative
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.tree import TokenTree
from ablations.lm.graphs import GraphedCache
from tests.dynatree.noisy_models import VOCABULARY, noisy_copy, tiny_model


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_graphed_arms_are_exact(architecture, monkeypatch):
    target = tiny_model(architecture)
    prompts = [list(range(start, start + 12)) for start in (1, 40)]
    expected = [decode_autoregressive(target, target.new_cache(128), prompt, 40) for prompt in prompts]
    monkeypatch.setattr("ablations.dynatree.drafters.neural.cache_for", GraphedCache)
    tree = TokenTree(20, target.device)
    drafter = NeuralDrafter(noisy_copy(target, 0.02), VOCABULARY, 128, tree.max_nodes)
    draft = Draft(drafter, tree, FixedGrowth(4, 2, None))
    single, several = GraphedCache(target, 128, 1), GraphedCache(target, 128, tree.max_nodes + 1)
    for prompt, plain in zip(prompts, expected, strict=True):
        assert decode_autoregressive(target, single, prompt, 40).tokens == plain.tokens
        generation = decode_speculative(target, several, draft, prompt, 40)
        assert generation.tokens == plain.tokens
        assert sum(generation.accepted) > 0
