from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from ablations.dynatree.decoding import Draft, Generation, decode_autoregressive, decode_speculative
from ablations.dynatree.drafters.interface import Drafter
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.tree import TokenTree
from ablations.lm.layered import LayeredLM
from tests.dynatree.noisy_models import VOCABULARY, noisy_copy, tiny_model

NEW_TOKENS = 48
ROOM = 512
SHAPES = {
    "linear": {"max_depth": 6, "branching": 1, "tau": None, "max_nodes": 6},
    "tree": {"max_depth": 5, "branching": 2, "tau": None, "max_nodes": 62},
    "pruned tree": {"max_depth": 6, "branching": 3, "tau": 0.02, "max_nodes": 128},
    "capped tree": {"max_depth": 5, "branching": 3, "tau": None, "max_nodes": 20},
    "tree of one level": {"max_depth": 1, "branching": 2, "tau": 0.05, "max_nodes": 2},
}


def prompts(count: int, seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (20,), generator=generator).tolist() for _ in range(count)]


def greedy(target: LayeredLM, prompt: list[int], limit: int = NEW_TOKENS) -> Generation:
    return decode_autoregressive(target, target.new_cache(ROOM), prompt, limit)


@dataclass
class Watched:
    """Wraps a drafter, and records the rank of each accepted child among its siblings."""

    inner: Drafter
    siblings: list[int] = field(default_factory=list)

    @property
    def forwards(self) -> int:
        return self.inner.forwards

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        self.inner.prefill(prompt, states)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        return self.inner.propose(tree, level, branching)

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        for node in path[1:].tolist():
            self.siblings.append(int((tree.parents[1:node] == tree.parents[node]).sum()))
        self.inner.commit(tree, path, states)


def drafted(target: LayeredLM, shape: str, noise: float = 0.02) -> Draft:
    sizes = dict(SHAPES[shape])
    tree = TokenTree(sizes.pop("max_nodes"), target.device)
    drafter = Watched(NeuralDrafter(noisy_copy(target, noise), VOCABULARY, ROOM, 8))
    return Draft(drafter=drafter, tree=tree, growth=FixedGrowth(**sizes))


def speculate(target: LayeredLM, draft: Draft, prompt: list[int], limit: int = NEW_TOKENS) -> Generation:
    return decode_speculative(target, target.new_cache(ROOM), draft, prompt, limit)


def check_statistics(generation: Generation, draft: Draft, ended_inside: bool = False) -> None:
    rounds = len(generation.accepted)
    assert len(generation.tokens) == sum(generation.accepted) + rounds + 1 - ended_inside
    assert all(0 <= accepted <= draft.growth.max_depth for accepted in generation.accepted)
    assert len(generation.tested) == len(generation.drafted) == rounds
    for accepted, tested, drafted in zip(
        generation.accepted, generation.tested, generation.drafted, strict=True
    ):
        assert accepted <= tested <= accepted + 1
        assert tested <= drafted <= draft.tree.max_nodes
    assert generation.draft_forwards <= rounds * draft.growth.max_depth
    assert generation.first_seconds > 0
    assert (generation.verify_seconds > 0) == (rounds > 0)
    assert generation.draft_seconds + generation.verify_seconds <= generation.round_seconds


@torch.inference_mode()
@pytest.mark.parametrize("shape", SHAPES)
def test_speculative_tokens_are_the_greedy_ones(target, shape):
    draft = drafted(target, shape)
    for prompt in prompts(3):
        expected = greedy(target, prompt)
        generation = speculate(target, draft, prompt)
        library = decode_with_transformers(target, prompt, NEW_TOKENS)
        assert generation.tokens == expected.tokens == library.tokens
        check_statistics(generation, draft)


@torch.inference_mode()
def test_a_noisy_draft_is_accepted_in_depth_and_by_second_siblings(target):
    """The other tests are meaningful only if long paths and second siblings are accepted."""
    # GPT-NeoX's parallel residual dampens the noise.
    noise = 0.1 if target.config.model_type == "gpt_neox" else 0.05
    draft = drafted(target, "tree", noise)
    accepted = []
    for prompt in prompts(8):
        generation = speculate(target, draft, prompt)
        assert generation.tokens == greedy(target, prompt).tokens
        accepted += generation.accepted
    assert sum(accepted) / len(accepted) + 1 > 2
    assert sum(place == 1 for place in draft.drafter.siblings) >= 50


@dataclass
class Counter:
    """Records the rows of each forward of a model, by a hook on its embedding."""

    rows: list[int] = field(default_factory=list)

    def watch(self, lm: LayeredLM) -> None:
        lm.embedding.register_forward_hook(
            lambda _module, inputs, _output: self.rows.append(inputs[0].shape[1])
        )


@torch.inference_mode()
@pytest.mark.parametrize("shape", ["linear", "tree", "pruned tree"])
def test_one_target_forward_a_round_and_one_draft_forward_a_level(shape):
    target = tiny_model("llama")
    draft = drafted(target, shape)
    target_calls, draft_calls = Counter(), Counter()
    target_calls.watch(target)
    draft_calls.watch(draft.drafter.inner._draft)
    (prompt,) = prompts(1)
    generation = speculate(target, draft, prompt)
    # The prefill, then one per round over the root and all its nodes.
    assert len(target_calls.rows) == 1 + len(generation.accepted)
    assert sum(target_calls.rows[1:]) == sum(generation.drafted) + len(generation.accepted)
    assert len(draft_calls.rows) == 1 + generation.draft_forwards
    levels = [
        min(draft.growth.max_depth, NEW_TOKENS - 1 - done) for done in _tokens_before_rounds(generation)
    ]
    assert generation.draft_forwards <= sum(levels)
    if draft.growth.tau is None:
        assert generation.draft_forwards == sum(levels)


def _tokens_before_rounds(generation: Generation) -> list[int]:
    done = [1]
    for accepted in generation.accepted[:-1]:
        done.append(done[-1] + accepted + 1)
    return done


@torch.inference_mode()
@pytest.mark.parametrize("shape", ["linear", "tree", "capped tree"])
def test_a_perfect_draft_is_accepted_whole(shape):
    target = tiny_model("qwen2")
    draft = drafted(target, shape, noise=0.0)
    (prompt,) = prompts(1)
    generation = speculate(target, draft, prompt, limit=1 + 3 * (draft.growth.max_depth + 1))
    if shape != "capped tree":
        assert generation.accepted == [draft.growth.max_depth] * 3
    assert generation.tokens == greedy(target, prompt, limit=1 + 3 * (draft.growth.max_depth + 1)).tokens


@torch.inference_mode()
@pytest.mark.parametrize("shape", ["linear", "tree", "pruned tree"])
def test_end_of_sequence_stops_where_greedy_decoding_stops(shape):
    target = tiny_model("llama")
    draft = drafted(target, shape)
    (prompt,) = prompts(1, seed=5)
    whole = greedy(target, prompt).tokens
    firsts = sorted({whole.index(token) for token in whole})
    inside = 0
    for position in firsts[:12]:
        target.model.generation_config.eos_token_id = [whole[position], VOCABULARY + 5]
        expected = whole[: position + 1]
        assert greedy(target, prompt).tokens == expected
        assert decode_with_transformers(target, prompt, NEW_TOKENS).tokens == expected
        generation = speculate(target, draft, prompt)
        assert generation.tokens == expected
        cut = len(generation.tokens) == sum(generation.accepted) + len(generation.accepted)
        check_statistics(generation, draft, ended_inside=cut and bool(generation.accepted))
        inside += cut and bool(generation.accepted)
    assert firsts[0] == 0
    assert inside >= 2


@torch.inference_mode()
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9])
def test_the_limit_of_new_tokens_is_exact(limit):
    target = tiny_model("gpt_neox")
    draft = drafted(target, "tree", noise=0.01)
    (prompt,) = prompts(1)
    expected = greedy(target, prompt).tokens[:limit]
    assert greedy(target, prompt, limit).tokens == expected
    generation = speculate(target, draft, prompt, limit)
    assert generation.tokens == expected
    check_statistics(generation, draft)


@torch.inference_mode()
def test_state_does_not_leak_from_prompt_to_prompt():
    target = tiny_model("llama")
    draft = drafted(target, "pruned tree")
    first, second = prompts(2)
    alone = speculate(target, drafted(target, "pruned tree"), second)
    speculate(target, draft, first)
    after = speculate(target, draft, second)
    assert (after.tokens, after.accepted, after.drafted) == (alone.tokens, alone.accepted, alone.drafted)
