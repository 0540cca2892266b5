"""Tiny random causal LMs of the supported kinds."""

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen2Config

from ablations.lm.layered import LayeredLM

VOCABULARY = 97
LAYERS = 6
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    # Large, so that attention and positions matter: with the usual 0.02 a random model is nearly linear.
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2),
    "mistral": lambda: MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SHAPE, num_key_value_heads=2),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE, rotary_pct=0.5),
}


def tiny_lm(architecture: str, seed: int = 0) -> LayeredLM:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture](), attn_implementation="sdpa")
    return LayeredLM(model.float().eval().requires_grad_(False))
