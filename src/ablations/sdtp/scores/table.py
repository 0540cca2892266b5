"""The saliency table: windows and the saliency of their tokens, as one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ablations.study.artefact import open_artefact
from ablations.study.contracts.sdtp import SaliencySpec
from ablations.study.errors import UserError

SALIENCY_FILE = "saliency.safetensors"


@dataclass(frozen=True)
class SaliencyTable:
    """What the `saliency` job leaves.

    Attributes:
        ids: ``[windows, tokens]`` int64.
        saliency: ``[windows, stages, tokens]`` float32, raw; negative only where the measure is `signed`.
        heldout: ``[windows]`` bool, windows of held-out documents, which nothing is trained on or chosen
            by; the others are for training.
        documents: Identifier of each window's document.
        spec: What it was made from; its `continuation_tokens` end each window and are never pruned.
    """

    ids: Tensor
    saliency: Tensor
    heldout: Tensor
    documents: tuple[str, ...]
    spec: SaliencySpec


def read_saliency(manifest_path: Path, layers: tuple[int, ...]) -> SaliencyTable:
    """Read a saliency table for `layers`, out of one that was made for them and perhaps for others, too.

    Raises:
        UserError: a file is missing or corrupt, or the table was made for other layers.
    """
    folder, manifest = open_artefact(manifest_path)
    spec = SaliencySpec.model_validate(manifest.spec)
    made_for = spec.layers
    if not set(layers) <= set(made_for):
        raise UserError(
            f"{manifest_path}: saliency of layers {list(made_for)}, but 'layers' is {list(layers)};"
            " let snakemake build the saliency of these layers"
        )
    tensors = load_file(folder / SALIENCY_FILE)
    saliency = tensors["saliency"][:, [made_for.index(layer) for layer in layers]]
    documents = tuple(manifest.facts["documents"])
    return SaliencyTable(tensors["ids"], saliency, tensors["heldout"], documents, spec)
