import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ablations.lm.layered import LayeredLM
from ablations.lm.packing import PackedLinear, pack_linears


def model(architecture: str, dtype: torch.dtype = torch.float32) -> LayeredLM:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=101,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=architecture == "llama",
    )
    return LayeredLM(AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False))


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 63])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_the_same_function(rows, bias):
    torch.manual_seed(rows)
    linear = torch.nn.Linear(48, 37, bias=bias)
    batch = torch.randn(1, rows, 48)
    packed = PackedLinear(linear)
    torch.testing.assert_close(packed(batch), linear(batch), rtol=1e-5, atol=1e-6)
    assert packed.out_features == 37


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_a_packed_model_gives_the_same_logits_and_keeps_its_embedding(architecture):
    lm = model(architecture)
    ids, positions = torch.randint(0, 101, (1, 9)), torch.arange(9)[None]
    expected = lm.forward(ids, positions)
    embedding = lm.embedding.weight.clone()
    assert pack_linears(lm) == "onednn"
    assert isinstance(lm.lm_head, PackedLinear)
    assert not any(isinstance(module, torch.nn.Linear) for module in lm.model.modules())
    torch.testing.assert_close(lm.forward(ids, positions), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lm.model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(lm.embedding.weight, embedding)


@torch.inference_mode()
def test_bfloat16_is_packed_where_the_processor_knows_it():
    lm = model("llama", torch.bfloat16)
    ids, positions = torch.randint(0, 101, (1, 9)), torch.arange(9)[None]
    expected = lm.forward(ids, positions)
    known = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert pack_linears(lm) == ("onednn" if known else "stock")
    torch.testing.assert_close(lm.forward(ids, positions), expected, rtol=0.05, atol=0.02)


def test_half_precision_stays_as_it_is():
    lm = model("llama", torch.float16)
    assert pack_linears(lm) == "stock"
    assert isinstance(lm.lm_head, torch.nn.Linear)
