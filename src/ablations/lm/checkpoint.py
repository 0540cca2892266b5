"""Loading a prepared checkpoint and its tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.layered import LayeredLM
from ablations.lm.loading import load_weights
from ablations.lm.tokenizer import read_tokenizer, require_embedding_rows
from ablations.specs.lm import Compute


def load_model(manifest: Path, compute: Compute, device: torch.device) -> LayeredLM:
    """Load the checkpoint that `ablations.lm.prepare_model` made, frozen and in evaluation mode.

    Args:
        manifest: Manifest of the checkpoint.
        compute: Its `dtype` becomes that of weights and activations.
        device: Device of the weights.

    Raises:
        UserError: a file is missing or corrupt, the architecture is not supported, the checkpoint has
            other tensors than the model or another number of layers than its manifest says, or its weights
            do not fit the device.
    """
    folder, content = open_artefact(manifest)
    facts: dict[str, Any] = content.facts
    _require_memory(manifest, facts["parameters"], compute, device)
    logging.disable_progress_bar()
    model = load_weights(
        folder,
        # A checkpoint given by hand is a folder of links; errors name the folder that the user gave.
        name=content.spec.get("folder", str(folder)),
        dtype=getattr(torch, compute.dtype),
        attn_implementation="sdpa",
        local_files_only=True,
    )
    lm = LayeredLM(model.to(device).eval().requires_grad_(False))
    if lm.num_layers != facts["layers"]:
        raise UserError(
            f"{manifest}: 'layers' is {facts['layers']} but the checkpoint has {lm.num_layers};"
            " delete it and run snakemake again"
        )
    return lm


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer saved with a prepared checkpoint, with the settings of `ablations.lm.tokenizer`.

    Raises:
        UserError: a file is missing or corrupt, or tokens have no row in the model's embedding.
    """
    folder, content = open_artefact(manifest, unread="*.safetensors")
    facts: dict[str, Any] = content.facts
    name = content.spec.get("folder", str(folder))
    tokenizer = read_tokenizer(folder, name=name, local_files_only=True)
    return require_embedding_rows(tokenizer, facts["vocabulary"], name)


def _require_memory(manifest: Path, parameters: int, compute: Compute, device: torch.device) -> None:
    if device.type != "cuda":
        return
    weights = parameters * getattr(torch, compute.dtype).itemsize
    memory = torch.cuda.get_device_properties(device).total_memory
    if weights > memory:
        raise UserError(
            f"{manifest}: weights of {weights / 2**30:.0f} GiB do not fit the GPU's {memory / 2**30:.0f} GiB"
            " and are not spread over several: all layers share one KV cache, and moving states between"
            " GPUs would be timed as the arm's own; use a larger GPU, a smaller model, or bfloat16"
        )
