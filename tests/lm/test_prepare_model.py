"""Checkpoints from every source."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from tokenizers.pre_tokenizers import ByteLevel

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.prepare_model import prepare_model
from ablations.specs.lm import Compute, PrepareModelSpec
from ablations.specs.userfiles import content_hash
from tests.lm.conftest import run_of

CPU = torch.device("cpu")
TEXT = "def f(x):\n    return x  # naïve café 日本 \U0001f600\t12"
MakeModel = Callable[..., Path]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_random_models_run(make_model: MakeModel, architecture: str) -> None:
    manifest = make_model(architecture=architecture, layers=3)
    lm, tokenizer = load_model(manifest, Compute(), CPU), load_tokenizer(manifest)
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False).input_ids
    logits = lm.forward(ids, torch.arange(ids.shape[1])[None])
    torch.testing.assert_close(logits, lm.model(ids).logits, rtol=1e-5, atol=1e-5)
    facts = open_artefact(manifest)[1].facts
    assert facts == {
        "layers": 3,
        "hidden_size": 64,
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "vocabulary": 258,
        "prompt_start": "",
    }
    assert lm.eos_ids == {tokenizer.eos_token_id}


def test_random_models_depend_on_their_seed_alone(make_model: MakeModel) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weights = open_artefact(make_model("one"))[1].files["model.safetensors"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert open_artefact(make_model("two"))[1].files["model.safetensors"] == weights
    assert open_artefact(make_model("other", seed=1))[1].files["model.safetensors"] != weights


def test_the_byte_tokenizer_covers_any_text(make_model: MakeModel) -> None:
    tokenizer = load_tokenizer(make_model())
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert len(ids) == len(TEXT.encode())
    assert tokenizer.decode(ids) == TEXT


def test_heads_that_do_not_divide(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"'hidden_size' 36 .* 'heads' \(4\)"):
        make_model(hidden_size=36)


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A checkpoint as a user may have one: without a manifest."""
    shutil.copytree(make_model("source").parent, tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").unlink()
    return tmp_path / "mine"


def make_pretrained(make_model: MakeModel, folder: Path, layers: int = 2) -> Path:
    return make_model("copy", source="pretrained", name=str(folder), layers=layers)


def test_a_local_folder(make_model: MakeModel, folder: Path) -> None:
    manifest = make_pretrained(make_model, folder)
    files = open_artefact(manifest)[1].files
    assert (
        files["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    assert load_tokenizer(manifest).decode(load_tokenizer(manifest)(TEXT).input_ids) == TEXT


def test_wrong_layers_leave_what_was_there(make_model: MakeModel, folder: Path) -> None:
    manifest = make_pretrained(make_model, folder)
    before = manifest.read_bytes()
    with pytest.raises(UserError, match="'layers' is 7 but the checkpoint has 2"):
        make_pretrained(make_model, folder, layers=7)
    assert manifest.read_bytes() == before
    open_artefact(manifest)


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_corrupt_safetensors_is_named(make_model: MakeModel, folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100] if damage == "truncated" else b"no tensors at all")
    with pytest.raises(UserError, match=r"mine/model.safetensors: corrupt"):
        make_pretrained(make_model, folder)


def test_a_folder_without_a_model(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded.*'name'"):
        make_pretrained(make_model, tmp_path)


def test_offline_the_command_ends_with_one_line(tmp_path: Path) -> None:
    spec = {"model": {"source": "pretrained", "name": "nobody/nothing", "layers": 2}}
    job = {"digest": "d", "module": "m", "spec": spec, "spec_digest": "s", "code_digest": "c"}
    (tmp_path / "spec.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "ablations.lm.prepare_model", "--spec", str(tmp_path / "spec.json")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out" / "manifest.json")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: 'nobody/nothing' cannot be loaded")
    assert not (tmp_path / "out").exists()


def q4(values: np.ndarray) -> np.ndarray:
    return gguf.quants.quantize(values, GGMLQuantizationType.Q4_1)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in GGUF's order, with rotated pairs side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, leave_out: str = "", extra: str = "") -> dict[str, np.ndarray]:
    """Write a one-layer Llama in Q4_1; returns its dequantised weights by their names in `transformers`.

    The tensor `leave_out` is omitted; a tensor of 8 ones is added under the name `extra`.
    """
    hidden, inner, heads = 64, 96, 2
    symbols = ["<|end|>", *sorted(ByteLevel.alphabet()), "ab", "abc"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(symbols))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(symbols)
    writer.add_token_types([3] + [1] * (len(symbols) - 1))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}")
    generator = np.random.default_rng(0)
    shapes = {
        "token_embd": ("model.embed_tokens", (len(symbols), hidden)),
        "blk.0.attn_q": ("model.layers.0.self_attn.q_proj", (hidden, hidden)),
        "blk.0.attn_k": ("model.layers.0.self_attn.k_proj", (hidden, hidden)),
        "blk.0.attn_v": ("model.layers.0.self_attn.v_proj", (hidden, hidden)),
        "blk.0.attn_output": ("model.layers.0.self_attn.o_proj", (hidden, hidden)),
        "blk.0.ffn_gate": ("model.layers.0.mlp.gate_proj", (inner, hidden)),
        "blk.0.ffn_up": ("model.layers.0.mlp.up_proj", (inner, hidden)),
        "blk.0.ffn_down": ("model.layers.0.mlp.down_proj", (hidden, inner)),
    }
    shapes.pop(leave_out, None)
    if extra:
        writer.add_tensor(extra, np.ones(8, np.float32))
    expected = {}
    for name, (plain, shape) in shapes.items():
        weight = generator.normal(scale=0.1, size=shape).astype(np.float32)
        packed = q4(interleaved(weight, heads) if name in ("blk.0.attn_q", "blk.0.attn_k") else weight)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=GGMLQuantizationType.Q4_1)
        # Blocks lie along rows, so the order of rows does not affect the quantisation.
        expected[f"{plain}.weight"] = gguf.quants.dequantize(q4(weight), GGMLQuantizationType.Q4_1)
    for name, plain in {
        "blk.0.attn_norm": "model.layers.0.input_layernorm",
        "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
        "output_norm": "model.norm",
    }.items():
        expected[f"{plain}.weight"] = generator.normal(size=hidden).astype(np.float32)
        writer.add_tensor(f"{name}.weight", expected[f"{plain}.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def test_a_gguf_in_a_wheel(make_model: MakeModel, make_wheel: Callable, tmp_path: Path) -> None:
    expected = write_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    make_wheel({"carrier/tiny.gguf": content})
    source = {
        "source": "wheel",
        "package": "carrier",
        "version": "1.0",
        "file": "carrier/tiny.gguf",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest = make_model(**source, layers=1)
    assert "quantization_config" not in json.loads((manifest.parent / "config.json").read_text())
    lm, tokenizer = load_model(manifest, Compute(), CPU), load_tokenizer(manifest)
    state = lm.model.state_dict()
    for name, weight in expected.items():
        np.testing.assert_allclose(state[name].numpy(), weight, atol=1e-6, err_msg=name)
    assert set(state) - set(expected) == {"lm_head.weight"}
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert len(tokenizer("abc").input_ids) == 1
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    assert lm.eos_ids == {0}


def test_a_revision_that_nobody_filled_in(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"'some/model': put the commit .* key 'revision'"):
        make_model(source="pretrained", name="some/model", revision="FILL-IN", layers=2)


def test_sliding_windows_are_refused_before_weights_are_read(make_model: MakeModel, folder: Path) -> None:
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(UserError, match="'mistral' uses sliding-window attention"):
        make_pretrained(make_model, folder)


def test_a_checkpoint_that_was_edited_after_planning_is_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    folder = make_model().parent
    spec = PrepareModelSpec.model_validate(
        {"model": {"source": "pretrained", "name": str(folder), "revision": None, "layers": 2}}
    )
    run = run_of(spec, tmp_path / "copy/manifest.json")
    planned = content_hash(folder, "models.mine.name")
    run.job = run.job.model_copy(update={"input_digests": {"files": planned}})
    prepare_model(run)
    (folder / "README.md").write_text("Edited.")
    with pytest.raises(UserError, match="edited after this job was planned; run snakemake again"):
        prepare_model(run)
