"""LayeredLM and StaticCache against the models' own forward."""

import pytest
import torch
from transformers import LlamaConfig

from ablations.core.errors import UserError
from ablations.lm.architecture import architecture_of
from ablations.lm.layered import LayeredLM
from tests.lm.tiny_models import TINY, tiny_model

FULL_ATTENTION = {"llama": {}, "mistral": {"sliding_window": None}, "qwen2": {}, "gpt_neox": {}}


@pytest.fixture(params=FULL_ATTENTION)
def lm(request: pytest.FixtureRequest) -> LayeredLM:
    return LayeredLM(tiny_model(request.param, **FULL_ATTENTION[request.param]))


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(TINY["vocab_size"], (1, 17), generator=torch.Generator().manual_seed(1))


def positions_of(start: int, end: int) -> torch.Tensor:
    return torch.arange(start, end)[None]


def test_full_forward(lm: LayeredLM, ids: torch.Tensor) -> None:
    expected = lm.model(ids).logits
    logits = lm.forward(ids, positions_of(0, 17))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    last = lm.forward(ids, positions_of(0, 17), last_only=True)
    torch.testing.assert_close(last, expected[:, -1:], rtol=1e-5, atol=1e-5)


def test_positions_matter(lm: LayeredLM, ids: torch.Tensor) -> None:
    positions = positions_of(0, 17) * 3
    expected = lm.model(ids, position_ids=positions).logits
    torch.testing.assert_close(lm.forward(ids, positions), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(lm.forward(ids, positions_of(0, 17)), expected, atol=1e-3)


def test_prefill_then_steps(lm: LayeredLM, ids: torch.Tensor) -> None:
    expected = lm.model(ids).logits
    cache = lm.new_cache(17)
    logits = [lm.forward(ids[:, :12], positions_of(0, 12), cache=cache)]
    logits += [lm.forward(ids[:, at : at + 1], positions_of(at, at + 1), cache=cache) for at in range(12, 17)]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=1e-5, atol=1e-5)
    assert cache.lengths == [17] * lm.num_layers


@pytest.mark.parametrize("additive", [False, True])
def test_several_rows_on_a_filled_cache_with_a_mask(lm: LayeredLM, ids: torch.Tensor, additive: bool) -> None:
    expected = lm.model(ids).logits
    cache = lm.new_cache(32)
    lm.forward(ids[:, :12], positions_of(0, 12), cache=cache)
    mask = torch.ones(17, 17, dtype=torch.bool).tril()[None, None, 12:]
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    logits = lm.forward(ids[:, 12:], positions_of(12, 17), mask, cache)
    torch.testing.assert_close(logits, expected[:, 12:], rtol=1e-5, atol=1e-5)


def test_several_rows_on_a_filled_cache_need_a_mask(lm: LayeredLM, ids: torch.Tensor) -> None:
    cache = lm.new_cache(32)
    lm.forward(ids[:, :12], positions_of(0, 12), cache=cache)
    with pytest.raises(ValueError, match="mask"):
        lm.forward(ids[:, 12:], positions_of(12, 17), cache=cache)


def test_cache_has_one_row_per_key_value_head(lm: LayeredLM) -> None:
    heads = 4 if lm.config.model_type == "gpt_neox" else 2
    cache = lm.new_cache(5)
    assert len(cache.keys) == TINY["num_hidden_layers"]
    assert cache.keys[0].shape == (1, heads, 5, 8)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("mistral", {"sliding_window": 8}), ("qwen2", {"use_sliding_window": True, "max_window_layers": 1})],
)
def test_sliding_windows_are_refused(architecture: str, changes: dict) -> None:
    with pytest.raises(UserError, match="sliding-window"):
        LayeredLM(tiny_model(architecture, **changes))


def test_other_architectures_are_refused() -> None:
    with pytest.raises(UserError, match=r"'opt'.*gpt_neox.*llama"):
        LayeredLM(tiny_model("opt", num_key_value_heads=4))


def test_ends_of_sequence() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [5, 7]
    assert LayeredLM(model).eos_ids == {5, 7}
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = 9
    assert LayeredLM(model).eos_ids == {9}
    model.config.eos_token_id = None
    assert LayeredLM(model).eos_ids == frozenset()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_frequencies_that_follow_the_length_are_refused(kind: str) -> None:
    config = LlamaConfig()
    config.rope_parameters = {"rope_type": kind}
    with pytest.raises(UserError, match=f"RoPE of type '{kind}' changes with the length"):
        architecture_of(config)
