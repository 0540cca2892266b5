"""Tiny models of every supported architecture."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def tiny_model(architecture: str, **changes: object) -> PreTrainedModel:
    """A model with random values in all parameters: biases of 0 and norms of 1 would hide mistakes."""
    grouped = {} if architecture == "gpt_neox" else {"num_key_value_heads": 2}
    config = AutoConfig.for_model(architecture, **{**TINY, **grouped, **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)
