import pytest
import torch

from ablations.lm.fused import FusedLM, fastest
from ablations.lm.layered import LayeredLM
from tests.lm.tiny_models import tiny_model

WIDE = ("llama", "mistral", "qwen2")


def model(architecture: str, **changes: object) -> LayeredLM:
    if architecture == "mistral":
        changes["sliding_window"] = None
    return LayeredLM(tiny_model(architecture, **changes))


def decode(lm: LayeredLM, ids: torch.Tensor) -> list[torch.Tensor]:
    """Logits of a prefill, of rows that branch under a tree mask, and of a single row."""
    cache = lm.new_cache(32)
    logits = [lm.forward(ids[:, :9], torch.arange(9)[None], None, cache)]
    mask = torch.zeros(1, 1, 3, 12)
    mask[..., 9:] = torch.tensor([[0.0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [0, -torch.inf, 0]])
    logits.append(lm.forward(ids[:, 9:12], torch.tensor([[9, 10, 10]]), mask, cache))
    cache.keep(9, torch.tensor([0, 2]))
    logits.append(lm.forward(ids[:, 12:13], torch.tensor([[11]]), None, cache))
    return logits


@torch.inference_mode()
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("architecture", WIDE)
def test_fused_layers_are_the_same_function(architecture, kv_heads):
    ids = torch.randint(0, 97, (1, 13))
    expected = decode(model(architecture, num_key_value_heads=kv_heads), ids)
    lm, form = fastest(model(architecture, num_key_value_heads=kv_heads))
    assert isinstance(lm, FusedLM)
    assert form == f"fused {lm.layout}"
    for fused_logits, stock_logits in zip(decode(lm, ids), expected, strict=True):
        torch.testing.assert_close(fused_logits, stock_logits, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("architecture", WIDE)
def test_the_model_it_was_made_from_stays_usable(architecture):
    ids = torch.randint(0, 97, (1, 13))
    expected = model(architecture).model(ids).logits
    lm, _ = fastest(model(architecture))
    torch.testing.assert_close(lm.model(ids).logits, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_without_packing_the_stock_products_are_the_same_and_share_their_weights(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    ids = torch.randint(0, 97, (1, 13))
    expected = decode(model("qwen2"), ids)
    lm, form = fastest(model("qwen2"))
    assert form == "fused stock"
    attention = lm.model.model.layers[0].self_attn
    assert attention.k_proj.weight.data_ptr() == attention.q_proj.weight[-1:].data_ptr() + 32 * 4
    for fused_logits, stock_logits in zip(decode(lm, ids), expected, strict=True):
        torch.testing.assert_close(fused_logits, stock_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "settings"), [("gpt_neox", {}), ("llama", {"hidden_act": "gelu"})])
def test_other_layers_stay_those_of_transformers(architecture, settings):
    lm = model(architecture, **settings)
    fastest_lm, form = fastest(lm)
    assert fastest_lm is lm
    assert not form.startswith("fused")


@torch.inference_mode()
def test_several_rows_on_a_filled_cache_need_a_mask():
    lm, _ = fastest(model("llama"))
    cache = lm.new_cache(8)
    lm.forward(torch.ones(1, 2, dtype=torch.int64), torch.arange(2)[None], None, cache)
    with pytest.raises(ValueError, match="explicit attention mask"):
        lm.forward(torch.ones(1, 2, dtype=torch.int64), torch.arange(2, 4)[None], None, cache)
