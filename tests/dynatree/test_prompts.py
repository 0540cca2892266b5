"""Prompts in the target's chat template."""

import json

import pytest
from transformers import AutoTokenizer

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.job import read_job
from ablations.dynatree.prompts import first_prompts, read_prompts
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.specs.dynatree.decode import DecodeSpec
from ablations.specs.dynatree.prompts import PromptKind
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec
from tests.dynatree.noisy_models import tiny_model
from tests.dynatree.workspace import decode_spec, run_job, write_job
from tests.lm.llama_like import BOS, save_llama_like

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"
TURNS = ["Why is the sky blue?", "Name a tree."]


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path, {"source": "random", "architecture": "llama", "layers": 1})


def make_job(tmp_path, source):
    """A job with one set of chat prompts, and one of the same documents as they are."""
    inputs = {"model": run_job(tmp_path, "model", PrepareModelSpec, prepare_model, {"model": source}, {})}
    file = tmp_path / "turns.jsonl"
    file.write_text("".join(json.dumps({"text": turn}) + "\n" for turn in TURNS))
    text = {"text": {"source": "local", "path": str(file), "split": "heldout"}}
    inputs["turns"] = run_job(tmp_path, "turns", PrepareTextSpec, prepare_text, text, {})
    turns = {"text": "turns", "split": "heldout", "count": 2, "tokens": None}
    prompts = [{"kind": "chat", "chat": True} | turns, {"kind": "plain"} | turns]
    spec = decode_spec(None, None, None, prompts=prompts)
    return read_job(write_job(tmp_path, "job", spec, inputs), DecodeSpec)


def give_template(manifest):
    """Save a chat template with the tokenizer of a model artefact."""
    folder = manifest.parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    described = Manifest.model_validate_json(manifest.read_bytes())
    names = {path.name for path in folder.iterdir()} - {manifest.name}
    files = {name: sha256_file(folder / name) for name in sorted(names)}
    manifest.write_text(described.model_copy(update={"files": files}).model_dump_json())
    return tokenizer


def test_a_chat_prompt_ends_where_the_answer_begins(job):
    tokenizer = give_template(job.path("model"))
    texts = {kind: set() for kind in ("chat", "plain")}
    for window in read_prompts(job, tiny_model("llama"), job.spec.new_tokens):
        texts[window.kind].add(tokenizer.decode(window.ids))
    assert texts == {"chat": {f"<user>{turn}<assistant>" for turn in TURNS}, "plain": set(TURNS)}


def test_a_target_with_bos_reads_it_once(tmp_path):
    """The tokenizer puts BOS before a plain prompt, the template before a chat."""
    folder = save_llama_like(tmp_path / "saved", "{{ bos_token }}" + TEMPLATE)
    source = {"source": "pretrained", "name": str(folder), "layers": 2}
    job = make_job(tmp_path, source)
    texts = {kind: set() for kind in ("chat", "plain")}
    tokenizer = load_tokenizer(job.path("model"))
    for window in read_prompts(job, tiny_model("llama"), job.spec.new_tokens):
        texts[window.kind].add("".join(tokenizer.convert_ids_to_tokens(window.ids.tolist())))
    turns = [turn.replace(" ", "▁") for turn in TURNS]
    assert texts["plain"] == {f"{BOS}▁{turn}" for turn in turns}
    # After its own BOS token the template goes on without a space.
    assert texts["chat"] == {f"{BOS}<user>{turn}<assistant>" for turn in turns}


@pytest.mark.parametrize("kind", [0, 1])
def test_a_prompt_is_the_same_whatever_the_count(job, kind):
    """So that a block of a series belongs to no count."""
    give_template(job.path("model"))
    target, chosen = tiny_model("llama"), job.spec.prompts[kind]
    source = PromptKind(**chosen.fields_of(PromptKind))
    paths = job.path("turns"), job.path("model")
    one, both = (first_prompts(source, count, *paths, target, 12) for count in (1, 2))
    every = read_prompts(job, target, job.spec.new_tokens)
    whole = [window for window in every if window.kind == chosen.kind]
    for windows in (one, both):
        for window, expected in zip(windows, whole, strict=False):
            assert (window.document, window.kind) == (expected.document, chosen.kind)
            assert window.ids.equal(expected.ids)
    assert (len(one), len(both)) == (1, 2)


def test_chat_prompts_need_a_chat_template(job):
    with pytest.raises(UserError, match=r"dynatree\.prompts: the target has no chat template; set 'chat'"):
        read_prompts(job, tiny_model("llama"), job.spec.new_tokens)
