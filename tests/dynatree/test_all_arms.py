"""Exactness of every drafter and growth, on every architecture, over random prompts and ends."""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ablations.dynatree.decoding import Draft, Generation, decode_autoregressive, decode_speculative
from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.drafters.ngram import NgramDrafter
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.dynatree.fit_ngram import count_ngrams
from ablations.dynatree.replay import replay
from ablations.dynatree.traces import Trace
from ablations.dynatree.tree import TokenTree
from ablations.lm.corpus import Window
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.arm import PromptLookup
from tests.dynatree.growths import CPU, MAX_NODES, growths
from tests.dynatree.noisy_models import SIZES, VOCABULARY, noisy_copy, tiny_model
from tests.dynatree.states import states_of_text

LIMIT = 24
ROOM = 128
DRAFTERS = ("ngram", "prompt lookup", "neural")


@cache
def model(architecture: str) -> LayeredLM:
    return tiny_model(architecture)


@cache
def drafter(architecture: str, kind: str) -> Drafter:
    """One drafter for all examples, as a job has one for all prompts."""
    if kind == "prompt lookup":
        return PromptLookupDrafter(PromptLookup(longest=4), CPU)
    if kind == "neural":
        noise = 0.1 if architecture == "gpt_neox" else 0.05
        return NeuralDrafter(noisy_copy(model(architecture), noise), VOCABULARY, ROOM, 8)
    target = model(architecture)
    # N-grams of the target's own text, since those of random text would never be accepted.
    starts = torch.randint(0, VOCABULARY, (6, 4), generator=torch.Generator().manual_seed(1)).tolist()
    text = [decode_autoregressive(target, target.new_cache(ROOM), start, 60).tokens for start in starts]
    return NgramDrafter(NgramCounts(count_ngrams(text, 4, VOCABULARY), VOCABULARY), 8.0, CPU)


def greedy(target: LayeredLM, prompt: list[int], limit: int) -> list[int]:
    return decode_autoregressive(target, target.new_cache(ROOM), prompt, limit).tokens


def speculate(target: LayeredLM, draft: Draft, prompt: list[int], limit: int) -> Generation:
    return decode_speculative(target, target.new_cache(ROOM), draft, prompt, limit)


def end_at(target: LayeredLM, token: int | None) -> None:
    target.model.generation_config.eos_token_id = token


@torch.inference_mode()
@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("architecture", sorted(SIZES))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    growth=growths(),
    prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20),
    limit=st.integers(1, LIMIT),
    end=st.none() | st.integers(0, LIMIT - 1),
)
def test_every_arm_emits_the_greedy_tokens(architecture, kind, growth, prompt, limit, end):
    target = model(architecture)
    end_at(target, None)
    whole = greedy(target, prompt, limit)
    end_at(target, whole[end] if end is not None and end < len(whole) else None)
    expected = greedy(target, prompt, limit)
    draft = Draft(drafter(architecture, kind), TokenTree(MAX_NODES, CPU), growth)
    generation = speculate(target, draft, prompt, limit)
    event(f"accepted some: {any(generation.accepted)}")
    assert generation.tokens == expected
    rounds = zip(generation.accepted, generation.tested, generation.drafted, strict=True)
    for accepted, tested, drafted in rounds:
        assert accepted <= tested <= min(accepted + 1, drafted)
        assert drafted <= MAX_NODES
    emitted = sum(generation.accepted) + len(generation.accepted) + 1
    assert emitted - len(generation.tokens) in (0, 1)
    if emitted > len(generation.tokens):
        assert generation.tokens[-1] in target.eos_ids


@torch.inference_mode()
@pytest.mark.parametrize("kind", DRAFTERS)
@settings(max_examples=20, deadline=None)
@given(growth=growths(), prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20))
def test_a_replay_has_the_rounds_of_decoding(kind, growth, prompt):
    target = model("llama")
    end_at(target, None)
    draft = Draft(drafter("llama", kind), TokenTree(MAX_NODES, CPU), growth)
    generation = speculate(target, draft, prompt, LIMIT)
    states = states_of_text(target, prompt, generation.tokens)
    trace = Trace(Window("d", "k", torch.tensor(prompt)), generation.tokens, states)
    rounds = list(replay(draft, trace, LIMIT))
    assert [replayed.accepted for replayed in rounds] == generation.accepted
    assert [replayed.size - 1 for replayed in rounds] == generation.drafted
    assert [replayed.tested for replayed in rounds] == generation.tested
    assert sum(len(replayed.levels) for replayed in rounds) == generation.draft_forwards
    assert [int(replayed.is_accepted.sum()) for replayed in rounds] == generation.accepted
