"""The `transformers` architectures that run layer by layer, and where they keep their pieces."""

from dataclasses import dataclass
from typing import Any

from ablations.study.errors import UserError


@dataclass(frozen=True)
class Parts:
    """Where an architecture keeps its pieces."""

    backbone: str
    embedding: str
    norm: str
    cache_keyword: str


_LLAMA_LIKE = Parts("model", "embed_tokens", "norm", "past_key_values")
ARCHITECTURES = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    # GPT-NeoX layers swallow a wrong cache keyword without a word.
    "gpt_neox": Parts("gpt_neox", "embed_in", "final_layer_norm", "layer_past"),
}


_CHANGING_ROPE = ("dynamic", "longrope")


def parts_of(config: Any) -> Parts:
    """Where the model of a `transformers` configuration keeps its pieces.

    Raises:
        UserError: an architecture this project cannot take apart, one with sliding-window layers, one whose
            rotary frequencies depend on the length of the text, or quantised weights.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        # The oldest of bitsandbytes name no method.
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
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in _CHANGING_ROPE:
        raise UserError(
            f"RoPE of type '{kind}' changes with the length of the text, which keys in a cache do not;"
            f" choose a checkpoint of another type"
        )
    return ARCHITECTURES[config.model_type]


def _has_sliding_window(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return bool(getattr(config, "sliding_window", None))
