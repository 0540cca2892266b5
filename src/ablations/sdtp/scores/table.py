"""The saliency table: windows and the saliency of their tokens, as one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.specs.sdtp.saliency import SaliencySpec

SALIENCY_FILE = "saliency.safetensors"


@dataclass(frozen=True)
class SaliencyTable:
    """Result of the `saliency` job.

    Attributes:
        ids: ``[windows, tokens]`` int64.
        saliency: ``[windows, stages, tokens]`` float32, raw; negative only with the measure `signed`.
        heldout: ``[windows]`` bool, windows of held-out documents, on which nothing is trained or chosen; the
            other windows are for training.
        documents: Identifier of each window's document.
        spec: Spec of the job; each window ends with its `continuation_tokens`, which are never pruned.
    """

    ids: Tensor
    saliency: Tensor
    heldout: Tensor
    documents: tuple[str, ...]
    spec: SaliencySpec


def read_saliency(manifest_path: Path, layers: tuple[int, ...]) -> SaliencyTable:
    """Read the part of a saliency table for `layers`; the table may have other layers, too.

    Raises:
        UserError: a file is missing or corrupt, or the table lacks a layer.
    """
    folder, manifest = open_artefact(manifest_path)
    spec = SaliencySpec.model_validate(manifest.spec)
    if not set(layers) <= set(spec.layers):
        raise UserError(
            f"{manifest_path}: saliency of layers {list(spec.layers)}, but 'layers' is {list(layers)};"
            " let snakemake build the saliency of these layers"
        )
    tensors = load_file(folder / SALIENCY_FILE)
    saliency = tensors["saliency"][:, [spec.layers.index(layer) for layer in layers]]
    documents = tuple(manifest.facts["documents"])
    return SaliencyTable(tensors["ids"], saliency, tensors["heldout"], documents, spec)
