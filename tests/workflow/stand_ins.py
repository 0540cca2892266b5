"""Tiny stand-ins for what paper-scale overlays fetch: the same architectures, the same columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ablations.lm.models.random import make_random_model
from ablations.specs.lm import RandomModel

SENTENCE = "The {0} of chapter {1} was long, and nobody who read it to the end forgot the {0}. "
NOUNS = ("story", "letter", "journey", "winter", "argument", "river", "treaty", "garden")

MODELS = {
    "pythia_2_8b": ("gpt_neox", 32),
    "pythia_70m": ("gpt_neox", 6),
    "mistral": ("mistral", 32),
    "qwen2": ("qwen2", 28),
    "llama2": ("llama", 32),
}
"""Architecture and layers of each model of the overlays."""


def text(number: int, sentences: int) -> str:
    """Distinct English for each number."""
    return "".join(SENTENCE.format(NOUNS[(number + i) % 8], f"{number}-{i}") for i in range(sentences))


def save_model(folder: Path, architecture: str, layers: int, seed: int) -> None:
    """A randomly initialised checkpoint as `save_pretrained` leaves it, with the byte tokenizer."""
    source = RandomModel(source="random", architecture="llama", layers=1, hidden_size=32)
    _, tokenizer = make_random_model(source)
    grouped = {} if architecture == "gpt_neox" else {"num_key_value_heads": 2}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **grouped,
        **({"sliding_window": None} if architecture == "mistral" else {}),
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_data(folder: Path) -> dict[str, dict[str, Any]]:
    """A file for each data set with the columns that it has on the hub; returns the keys that name them."""
    wikitext = [line for n in range(40) for line in ("", f" = Title {n} = \n", "", text(n, 60) + "\n")]
    tables = {
        "wikitext2": {"text": wikitext},
        "pg19": {
            "short_book_title": [f"Book {n}" for n in range(25)],
            "publication_date": [1850 + n for n in range(25)],
            "url": [f"http://example.org/{n}" for n in range(25)],
            "text": [text(n, 80) for n in range(25)],
        },
        "longbench": {
            "context": [text(n, 40) for n in range(100)],
            "question": ["Summarise."] * 100,
            "answers": [["A report."]] * 100,
            "task": ["gov_report"] * 100,
        },
    }
    keys = {}
    for name, columns in tables.items():
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        keys[name] = {"name": "parquet", "data_files": str(path)}
    rows = [
        {
            "instruction": f"Tell {n}.",
            "context": text(n, n % 3),
            "response": text(n, 5),
            "category": "open_qa",
        }
        for n in range(400)
    ]
    path = folder / "dolly.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys["dolly"] = {"name": "json", "data_files": str(path)}
    return {
        name: {**found, "config": None, "hub_split": "train", "revision": None}
        for name, found in keys.items()
    }


def overlay(folder: Path, study: dict[str, Any]) -> dict[str, Any]:
    """What a paper-scale study is overlaid with: local paths in the place of hub names, and small budgets."""
    data = save_data(folder)
    models = {}
    for seed, name in enumerate(study["models"]):
        architecture, layers = MODELS[name]
        save_model(folder / name, architecture, layers, seed)
        models[name] = {"name": str(folder / name), "revision": None, "description": "a stand-in"}
    small: dict[str, Any] = {
        "study": "stand-ins",
        "resources": {"gpu": 0, "mem_mb": 2048},
        "models": models,
        "texts": {name: data[name] for name in study["texts"]},
    }
    if study["sdtp"]["only"]:
        compute = {"dtype": "float32"}
        small["sdtp"] = {
            "saliency": {
                "documents": 4,
                "heldout_documents": 3,
                "tokens": 64,
                "continuation_tokens": 8,
                "compute": compute,
            },
            "training": {"width": 16, "compute": compute},
            "evaluation": {
                "documents": 4,
                "exploratory": {"documents": 3, "prompts": 2},
                "prompt_tokens": 96,
                "continuation_tokens": 8,
                "timing": {"documents": 2, "repeats": 2},
                "retrieval": {"tokens": 320, "depths": [0.5], "count": 4},
                "compute": compute,
            },
            # The last one is longer than the stand-in's positions, as the last of the study are.
            "sweep": {"lengths": [64, 600], "new_tokens": 4, "repeats": 2, "beyond_positions": True},
        }
    if study["dynatree"]["only"]:
        kinds = {"count": 2, "tokens": 48}
        small["dynatree"] = {
            "prompts": {"wikitext2": kinds, "pg19": kinds},
            "decoding": {"new_tokens": 16, "repeats": 2, "compute": {"dtype": "float32"}},
        }
    return small
