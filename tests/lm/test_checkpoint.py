"""Loading prepared checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.specs.lm import Compute

CPU = torch.device("cpu")


def test_the_model_is_frozen_and_has_the_type_of_the_spec(make_model: Callable[..., Path]) -> None:
    lm = load_model(make_model(), Compute(dtype="bfloat16"), CPU)
    assert lm.dtype == torch.bfloat16
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.config._attn_implementation == "sdpa"


def test_a_corrupt_file_is_named(make_model: Callable[..., Path]) -> None:
    manifest = make_model()
    weights = manifest.parent / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors: its SHA-256"):
        load_model(manifest, Compute(), CPU)


def test_a_missing_file_is_named(make_model: Callable[..., Path]) -> None:
    manifest = make_model()
    (manifest.parent / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json: missing"):
        load_tokenizer(manifest)


def test_another_number_of_layers(make_model: Callable[..., Path]) -> None:
    manifest = make_model()
    content = json.loads(manifest.read_text())
    content["facts"]["layers"] = 5
    manifest.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"'layers' is 5 but the checkpoint has 2"):
        load_model(manifest, Compute(), CPU)


def test_weights_that_outgrow_the_gpu(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the sizes in the manifest, before weights are read."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10_000))
    with pytest.raises(UserError, match=r"do not fit the GPU's 0 GiB and are not spread over several"):
        load_model(make_model(), Compute(), torch.device("cuda"))
