"""Shapes of models: the sizes on which time and memory depend."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.core.errors import UserError
from ablations.specs.lm import PrepareModelSpec, PretrainedModel, RandomModel, WheelModel
from ablations.specs.userfiles import user_path
from ablations.study.config.reading import read_yaml
from ablations.study.planning.jobs import Job

RANDOM_VOCABULARY = 258
"""Vocabulary of random models: the bytes and two special tokens."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only model.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the hidden states.
        heads: Query heads.
        intermediate: Width inside an MLP.
        matrices: Weights of the matrices of all layers.
        kv_width: Width of the keys (or values) of one token in one layer.
        attention_width: Width of all query heads.
        vocabulary: Tokens.
        parameters: All weights.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    matrices: int
    kv_width: int
    attention_width: int
    vocabulary: int
    parameters: int


def shape_of_config(config: Mapping[str, Any]) -> ModelShape:
    """Shape of a checkpoint, from its ``config.json``."""
    layers, hidden, intermediate, vocabulary = (
        config[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    attention = heads * head_dim
    kv = (config.get("num_key_value_heads") or heads) * head_dim
    mlp = 2 if config["model_type"] == "gpt_neox" else 3
    matrices = layers * (2 * hidden * attention + 2 * hidden * kv + mlp * hidden * intermediate)
    # Embeddings are untied by default; checkpoints that tie them say so (SmolLM2).
    embeddings = 1 if config.get("tie_word_embeddings") else 2
    return ModelShape(
        layers, hidden, heads, intermediate, matrices, kv, attention, vocabulary,
        parameters=matrices + embeddings * vocabulary * hidden,
    )  # fmt: skip


def shape_of_folder(folder: Path) -> ModelShape:
    """Shape of a checkpoint in a local folder.

    Raises:
        UserError: there is no ``config.json``, or it lacks a size.
    """
    path = folder / "config.json"
    try:
        return shape_of_config(json.loads(path.read_text(encoding="utf-8")))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ZeroDivisionError,
        RecursionError,
    ) as error:
        raise UserError(f"{path}: no configuration of a causal LM ({error}); repair the checkpoint") from None


def known_models(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Sizes of checkpoints that are not prepared yet, with the keys of ``config.json``, by name.

    Raises:
        UserError: the file is missing or not YAML, or an entry lacks a size.
    """
    known = read_list(path)
    if not isinstance(known, dict):
        raise UserError(f"{path}: not a map of models; correct it")
    for name, sizes in known.items():
        try:
            shape_of_config(sizes)
        except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise UserError(
                f"{path}: '{name}': no sizes of a causal LM ({error}); correct the entry"
            ) from None
    return known


def read_list(path: Path) -> Any:
    """Content of a YAML file that the repository ships, one of `workflow/plan`.

    Raises:
        UserError: the file is missing or not YAML.
    """
    try:
        return read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not here; run this in the root of the repository") from None


def shape_of_job(job: Job, known: Mapping[str, Mapping[str, Any]]) -> ModelShape:
    """Shape of the model that a job prepares: of its result, of its local source, or of the known models.

    Raises:
        UserError: the shape is not known.
    """
    if job.path.exists():
        return shape_of_folder(job.path.parent)
    assert isinstance(job.spec, PrepareModelSpec)
    source = job.spec.model
    match source:
        case RandomModel():
            kv_heads = source.heads // 2 if source.heads % 2 == 0 else source.heads
            return shape_of_config(
                {
                    "model_type": source.architecture,
                    "num_hidden_layers": source.layers,
                    "hidden_size": source.hidden_size,
                    "intermediate_size": 2 * source.hidden_size,
                    "num_attention_heads": source.heads,
                    "num_key_value_heads": source.heads if source.architecture == "gpt_neox" else kv_heads,
                    "vocab_size": RANDOM_VOCABULARY,
                }
            )
        case PretrainedModel() if user_path(source.name).is_dir():
            return shape_of_folder(user_path(source.name))
    name = source.file if isinstance(source, WheelModel) else source.name
    if name not in known:
        raise UserError(
            f"'{name}': its size is not known here; add it to workflow/plan/models.yaml, or let snakemake"
            f" prepare it ({job.path})"
        )
    return shape_of_config(known[name])
