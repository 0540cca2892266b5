"""A trained pruner, opened for the stages of a configuration."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ablations.core.artefact import Manifest, open_artefact
from ablations.core.errors import UserError
from ablations.lm.packing import pack_module
from ablations.sdtp.scores.pruner import PRUNER_FILE, Pruner, load_pruner
from ablations.specs.sdtp.train import PrunerSpec


def open_pruner(
    manifest_path: Path, layers: Sequence[int], device: torch.device
) -> tuple[Pruner, PrunerSpec, Manifest]:
    """Open a trained pruner for stages at `layers`: their scorers, what it was trained from, its manifest.

    The scorers come with packed weights where they can, as those of the language model.

    Raises:
        UserError: a file is missing, corrupt or no pruner, or it was trained for other layers.
    """
    folder, manifest = open_artefact(manifest_path)
    pruner, trained = load_pruner(folder / PRUNER_FILE, device)
    if not set(layers) <= set(trained.layers):
        raise UserError(
            f"{manifest_path}: a pruner for layers {list(trained.layers)}, but 'schedule.layers' is"
            f" {list(layers)}; let snakemake train one for these layers"
        )
    pruner = pruner.of_stages([trained.layers.index(layer) for layer in layers])
    pack_module(pruner)
    return pruner, trained, manifest
