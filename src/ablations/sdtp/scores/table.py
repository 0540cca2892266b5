"""The saliency table: windows and the saliency of their tokens, as one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.specs.sdtp.saliency import SaliencySpec, WindowKind

SALIENCY_FILE = "saliency.safetensors"


@dataclass(frozen=True)
class SaliencyTable:
    """Result of the `saliency` job: training windows of text, of retrieval, then held-out windows of text.

    Every window begins with a prompt of `prompt_tokens` tokens. After it come the tokens that count, which
    are never pruned: as many as `continuations` says. The rest of a row is padding, which no forward reads.

    Attributes:
        ids: ``[windows, tokens]`` int64; padded with zeros.
        saliency: ``[windows, stages, tokens]`` float32, raw; negative only with the measure `signed`; zero
            for padding.
        heldout: ``[windows]`` bool, windows of held-out documents, on which nothing is trained or chosen; the
            other windows are for training.
        continuations: ``[windows]`` int64, tokens after the prompt that count: `spec.continuation_tokens` of
            a text window, the answer's tokens of a retrieval window.
        kinds: What each window is: ``text``, or the kind of its retrieval prompt.
        documents: Identifier of each window's document.
        spec: Spec of the job.
    """

    ids: Tensor
    saliency: Tensor
    heldout: Tensor
    continuations: Tensor
    kinds: tuple[WindowKind, ...]
    documents: tuple[str, ...]
    spec: SaliencySpec

    @property
    def prompt_tokens(self) -> int:
        """Tokens of every window's prompt."""
        return self.spec.tokens - self.spec.continuation_tokens


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
    return SaliencyTable(
        ids=tensors["ids"],
        saliency=tensors["saliency"][:, [spec.layers.index(layer) for layer in layers]],
        heldout=tensors["heldout"],
        continuations=tensors["continuations"],
        kinds=tuple(manifest.facts["kinds"]),
        documents=tuple(manifest.facts["documents"]),
        spec=spec,
    )
