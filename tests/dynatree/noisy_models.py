"""Tiny random models, and drafts that are the target plus noise."""

import copy

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ablations.lm.layered import LayeredLM

VOCABULARY = 97
SIZES = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2, "use_sliding_window": False},
    "gpt_neox": {},
}


def tiny_model(architecture: str, seed: int = 0, vocabulary: int = VOCABULARY) -> LayeredLM:
    """A random model with confident predictions: its head is scaled, so that nodes pass the thresholds."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **SIZES[architecture],
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    model.get_output_embeddings().weight *= 3.0
    return LayeredLM(model)


def noisy_copy(target: LayeredLM, noise: float, seed: int = 1) -> LayeredLM:
    """The target with Gaussian noise on every weight matrix, relative to the matrix's own spread."""
    model = copy.deepcopy(target.model)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
    return LayeredLM(model)
