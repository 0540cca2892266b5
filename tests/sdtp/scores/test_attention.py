"""Attention scores against the attention weights of `transformers`, which has the full matrix."""

import pytest
import torch

from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.attention import WindowAttention
from ablations.sdtp.scores.importance import Prompt
from ablations.specs.sdtp.counts import Preserve
from tests.lm.tiny_models import TINY, tiny_model

TOKENS = 40
IDS = torch.randint(TINY["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(3))
LAYERS = (1, 2)
SURVIVORS = torch.tensor([0, 1, 4, 5, 9, 17, 18, 23, 30, 31, 36, 37, 38, 39])


@pytest.fixture(
    params=[
        ("llama", {}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("gpt_neox", {}),
        ("gpt_neox", {"attention_bias": False}),
    ],
    ids=str,
)
def lm(request):
    architecture, changes = request.param
    # With the usual 0.02 attention is nearly even, whatever queries and keys are.
    return LayeredLM(tiny_model(architecture, initializer_range=0.3, **changes))


def scores(lm, window, stage, states, indices, positions="original"):
    which = importance.attention(lm, LAYERS, window, positions)
    with torch.inference_mode():
        return which.scorer(Prompt(IDS, 0))(stage, states, indices)


@pytest.mark.parametrize("window", [1, 16, 100])
def test_attention_of_a_whole_prompt_is_that_of_transformers(lm, window):
    lm.model.set_attn_implementation("eager")
    output = lm.model(IDS[None], output_attentions=True, output_hidden_states=True, use_cache=False)
    for stage, layer in enumerate(LAYERS):
        weights = output.attentions[layer][0, :, -window:]
        found = scores(lm, window, stage, output.hidden_states[layer][0], torch.arange(TOKENS))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, weights.mean((0, 1)), rtol=1e-4, atol=1e-6)
        # The comparison tells something: rows of the matrix differ, and so do its heads.
        assert weights.mean((0, 1)).std() > 1e-3


@pytest.mark.parametrize("positions", ["original", "packed"])
@pytest.mark.parametrize("window", [1, 5])
def test_survivors_attend_from_their_own_positions(lm, window, positions):
    lm.model.set_attn_implementation("eager")
    rows = SURVIVORS.shape[0]
    states = torch.randn(rows, TINY["hidden_size"], generator=torch.Generator().manual_seed(0))
    layer = lm.layers[LAYERS[1]]
    attention = layer.attention if lm.config.model_type == "gpt_neox" else layer.self_attn
    places = SURVIVORS if positions == "original" else torch.arange(rows)
    _, weights = attention(
        layer.input_layernorm(states[None]),
        position_embeddings=lm.rotary(states[None], places[None]),
        attention_mask=torch.full((rows, rows), -torch.inf).triu(1)[None, None],
    )
    found = scores(lm, window, 1, states, SURVIVORS, positions)
    torch.testing.assert_close(found, weights[0, :, -window:].mean((0, 1)), rtol=1e-4, atol=1e-6)
    other = scores(lm, window, 1, states, SURVIVORS, "packed" if positions == "original" else "original")
    assert not torch.allclose(found, other, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_score_alike(lm, dtype):
    lm.model.to(dtype)
    states = torch.randn(TOKENS, TINY["hidden_size"], generator=torch.Generator().manual_seed(0)).to(dtype)
    which = importance.attention(lm, LAYERS, 4, "original")
    stock = WindowAttention(lm, LAYERS[0], 4)
    with torch.inference_mode():
        expected = stock(states, lm.rotary(states[None], torch.arange(TOKENS)[None]))
        pack_linears(lm)
        found = which.scorer(Prompt(IDS, 0))(0, states, torch.arange(TOKENS))
    assert found.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 0.1)


def test_a_stage_keeps_what_is_attended_to(lm):
    """Stage by stage: each scores its own layer's input, of the survivors of the stage before."""
    kept = {}
    for window in (1, 8):
        score = importance.attention(lm, LAYERS, window, "original").scorer(Prompt(IDS, 0))
        seen = []

        def spied(stage, states, indices, score=score, seen=seen):
            seen.append((indices, score(stage, states, indices)))
            return seen[-1][1]

        pruning = Pruning(LAYERS, (0.6, 0.6), Preserve(head=1, tail=8))
        result = prefill(lm, IDS, lm.new_cache(TOKENS), pruning, spied)
        (_, first), (survivors, second) = seen
        assert survivors.tolist() == sorted({0, *range(32, 40), *(first[1:32].topk(15).indices + 1).tolist()})
        chosen = survivors[1:-8][second[1:-8].topk(6).indices]
        assert result.kept.tolist() == sorted({0, *range(32, 40), *chosen.tolist()})
        kept[window] = result.kept.tolist()
    assert kept[1] != kept[8]
