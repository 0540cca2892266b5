"""Facts of models and of saliency, as far as their artefacts are there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy import stats

from ablations.core.artefact import Manifest, open_artefact
from ablations.core.files import sha256_file
from ablations.core.record import read_contract
from ablations.paper.results.files import RecordFile
from ablations.paper.results.models import ModelFacts, SaliencyMap

SALIENT_MASS = 0.8
"""Salient tokens are the fewest that hold this share of a layer's saliency."""


def model_facts(manifests: Mapping[str, str]) -> dict[str, ModelFacts]:
    """Facts of each model by role; a model whose checkpoint was deleted has none.

    Raises:
        UserError: a manifest is damaged.
    """
    found = {}
    for role, path in manifests.items():
        if not Path(path).is_file():
            continue
        manifest = read_contract(Path(path), Manifest)
        source: Any = manifest.spec["model"]
        random, quantised = source["source"] == "random", str(source.get("file", "")).endswith(".gguf")
        found[role] = ModelFacts(
            parameters=manifest.facts["parameters"],
            layers=manifest.facts["layers"],
            weights="random" if random else "dequantised" if quantised else "as published",
        )
    return found


def saliency_map(path: str | None) -> SaliencyMap | None:
    """The saliency that the baseline's scorer is measured against; None where there is no table.

    Raises:
        UserError: the table is damaged.
    """
    if path is None or not Path(path).is_file():
        return None
    folder, manifest = open_artefact(Path(path))
    spec: dict[str, Any] = manifest.spec
    table = load_file(folder / "saliency.safetensors")
    saliency = np.abs(table["saliency"][table["heldout"]].astype(np.float64))
    prompt = saliency[:, :, : saliency.shape[2] - spec["continuation_tokens"]]
    documents = np.array(manifest.facts["documents"])[table["heldout"]]
    shares = np.apply_along_axis(salient_share, 2, prompt)
    return SaliencyMap(
        file=RecordFile(path=path, sha256=sha256_file(Path(path)), digest=manifest.digests.job),
        document=str(documents[0]),
        layers=tuple(spec["layers"]),
        tokens=tuple(tuple((stats.rankdata(row) / len(row)).tolist()) for row in prompt[0]),
        windows=len(prompt),
        salient=tuple(shares.mean(axis=0).tolist()),
        salient_by_window=tuple(tuple(row) for row in shares.T.tolist()),
        mass=SALIENT_MASS,
    )


def salient_share(saliency: np.ndarray) -> float:
    """Smallest share of tokens that holds `SALIENT_MASS` of the saliency; shape (tokens,)."""
    falling = np.sort(saliency)[::-1]
    reached = np.cumsum(falling) >= SALIENT_MASS * falling.sum()
    return float((int(np.argmax(reached)) + 1) / len(falling))
