"""The `transformers` architectures that run layer by layer, and the attributes that hold their modules."""

from dataclasses import dataclass
from typing import Any

from ablations.core.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """Names by which an architecture's modules are reached.

    Attributes:
        backbone: Attribute of the causal LM that holds the decoder.
        embedding: Attribute of the backbone that holds the token embedding.
        norm: Attribute of the backbone that holds the final norm.
        attention: Attribute of a decoder layer that holds its attention.
        cache_keyword: Keyword by which a decoder layer takes its KV cache.
    """

    backbone: str
    embedding: str
    norm: str
    attention: str
    cache_keyword: str


_LLAMA_LIKE = Architecture("model", "embed_tokens", "norm", "self_attn", "past_key_values")
ARCHITECTURES = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    # A GPT-NeoX layer ignores a cache keyword that it does not know, without an error.
    "gpt_neox": Architecture("gpt_neox", "embed_in", "final_layer_norm", "attention", "layer_past"),
}


_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def architecture_of(config: Any) -> Architecture:
    """Architecture of a `transformers` configuration, checked to be one that runs layer by layer.

    Raises:
        UserError: the architecture is not in `ARCHITECTURES`, has sliding-window layers or rotary frequencies
            that depend on the length of the text, or the weights are quantised.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        # The oldest bitsandbytes checkpoints name no method.
        method = dict(quantised).get("quant_method", "bitsandbytes")
        raise UserError(
            f"the checkpoint is quantised ({method}), and quantised layers are not supported; choose the"
            " checkpoint it was made from, or save it dequantised"
        )
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"model type '{config.model_type}' is not supported; choose one of {sorted(ARCHITECTURES)}"
        )
    if _has_sliding_window(config):
        raise UserError(
            f"model type '{config.model_type}' uses sliding-window attention, which pruned and tree"
            " caches do not support; choose a checkpoint with full attention in every layer"
        )
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type in _LENGTH_DEPENDENT_ROPE:
        raise UserError(
            f"RoPE of type '{rope_type}' changes with the length of the text, which keys in a cache do not;"
            f" choose a checkpoint of another type"
        )
    return ARCHITECTURES[config.model_type]


def _has_sliding_window(config: Any) -> bool:
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None:
        return any(layer_type != "full_attention" for layer_type in layer_types)
    return bool(getattr(config, "sliding_window", None))
