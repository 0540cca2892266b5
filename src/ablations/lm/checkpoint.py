"""Loading a prepared checkpoint and its tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ablations.lm.layered import LayeredLM
from ablations.lm.loading import load_weights
from ablations.lm.tokenizer import read_tokenizer, require_rows
from ablations.study.artefact import open_artefact
from ablations.study.contracts.lm import Compute
from ablations.study.errors import UserError


def load_model(manifest: Path, compute: Compute, device: torch.device) -> LayeredLM:
    """Load the checkpoint that `ablations.lm.prepare_model` made, frozen and in evaluation mode.

    Args:
        manifest: Manifest of the checkpoint.
        compute: Its `dtype` becomes that of weights and activations.
        device: Where the weights go.

    Raises:
        UserError: a file is missing or corrupt, the architecture is not supported, the checkpoint has
            other tensors than the model or another number of layers than its manifest says, or its weights
            outgrow the device.
    """
    folder, described = open_artefact(manifest)
    facts: dict[str, Any] = described.facts
    _require_room(manifest, facts["parameters"], compute, device)
    logging.disable_progress_bar()
    model = load_weights(
        folder,
        # A checkpoint named by hand is read through links.
        name=described.spec.get("folder", str(folder)),
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
    """Load the tokenizer saved beside a prepared checkpoint (`ablations.lm.tokenizer` says how).

    Raises:
        UserError: a file is missing or corrupt, or tokens have no row in the model's embedding.
    """
    folder, described = open_artefact(manifest, unread="*.safetensors")
    facts: dict[str, Any] = described.facts
    name = described.spec.get("folder", str(folder))
    tokenizer = read_tokenizer(folder, name=name, local_files_only=True)
    return require_rows(tokenizer, facts["vocabulary"], name)


def _require_room(manifest: Path, parameters: int, compute: Compute, device: torch.device) -> None:
    if device.type != "cuda":
        return
    needed = parameters * getattr(torch, compute.dtype).itemsize
    room = torch.cuda.get_device_properties(device).total_memory
    if needed > room:
        raise UserError(
            f"{manifest}: weights of {needed / 2**30:.0f} GiB do not fit the GPU's {room / 2**30:.0f} GiB"
            " and are not spread over several: all layers share one KV cache, and moving states between"
            " GPUs would be timed as the arm's own; use a larger GPU, a smaller model, or bfloat16"
        )
