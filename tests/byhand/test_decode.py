"""The command line that decodes the user's prompts with one configuration."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ablations.byhand import decode as command
from ablations.byhand import inputs as by_hand
from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.job import require_pins
from ablations.core.record import read_contract, read_record, read_rows
from ablations.specs.dynatree.arm import DistilledDraftSpec, NeuralDraftSpec, NgramDraftSpec, PromptLookup
from tests.dynatree.workspace import make_inputs
from tests.lm.llama_like import BOS, save_llama_like


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("command")


@pytest.fixture(scope="module")
def inputs(folder) -> dict[str, Path]:
    return make_inputs(folder)


@pytest.fixture(scope="module")
def saved(folder, inputs) -> Path:
    """The target as `save_pretrained` leaves it, without a manifest."""
    path = folder / "saved"
    shutil.copytree(inputs["model"].parent, path, ignore=shutil.ignore_patterns("manifest.json"))
    return path


def decode(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "ablations.dynatree.decode", *map(str, arguments)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)


def test_a_file_of_prompts_is_decoded_and_recorded(folder, inputs, saved, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = ["def number_1(x):\n    return", "x + 2 * number_2(x)"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    done = decode(
        tmp_path,
        *("--target", saved, "--draft", inputs["ngram"], "--depth", 4, "--branch", 2, "--tau", 0.05),
        *("--tokens", 12, "--runs", 2, "--prompts", prompts, "--out", "record.json"),
    )
    assert done.returncode == 0, done.stderr
    heads, first, second, mean, where = done.stdout.splitlines()
    assert heads.split("  ")[0] == "prompt"
    assert first.startswith("prompt-1") and first.endswith("identical")
    assert second.startswith("prompt-2")
    assert mean.startswith("geometric mean")
    assert where == "record: record.json"
    record = read_record(tmp_path / "record.json", command.DecodeRecord)
    assert record.spec.shape.depth == 4
    assert record.spec.drafter.kind == "ngram"
    # A third round is run where the first two differ.
    assert all(len(sample.pairs) in (2, 3) for sample in record.samples)
    assert [sample.prompt_tokens for sample in record.samples] == [len(text) for text in texts]
    assert all(sample.matched for sample in record.samples)
    assert set(record.digests.inputs) == {"model", "prompts", "ngram", "by hand"}
    assert record.digests.inputs["ngram"] == read_contract(inputs["ngram"], Manifest).digests.job
    require_pins(record.digests.pins)


def test_the_target_can_draft_for_itself_and_autoregressive_decoding_is_measured_beside_generate(
    saved, tmp_path
):
    options = ("--target", saved, "--tokens", 9, "--runs", 1, "--prompt", "def f(x):")
    whole = decode(tmp_path, *options, "--draft", saved, "--depth", 3, "--branch", 1, "--tau", "none")
    assert whole.returncode == 0, whole.stderr
    # A perfect draft of three levels: four tokens a round.
    assert whole.stdout.splitlines()[1].split()[5:] == ["4.00", "identical"]
    (record,) = (tmp_path / "results/by-hand").glob("decode-*[0-9a-f].json")
    assert whole.stdout.splitlines()[-1] == f"record: {record.relative_to(tmp_path)}"
    alone = decode(tmp_path, *options, "--draft", "none")
    assert alone.returncode == 0, alone.stderr
    assert "generate tok/s" in alone.stdout.splitlines()[0]


def test_the_record_says_what_a_prompt_begins_with(saved, tmp_path):
    """BOS follows the convention of the tokenizer's post-processor, not its other settings."""
    folder = save_llama_like(tmp_path / "mine")
    prompt = "To be, or not to be."
    for target, start, tokens in ((saved, "", len(prompt)), (folder, BOS, 2 + len(prompt))):
        line = ("--target", target, "--draft", "none", "--runs", 1, "--tokens", 9, "--prompt", prompt)
        done = decode(tmp_path, *line, "--out", "record.json")
        assert done.returncode == 0, done.stderr
        record = read_record(tmp_path / "record.json", command.DecodeRecord)
        assert record.environment.prompt_start == start
        assert [sample.prompt_tokens for sample in record.samples] == [tokens]


def with_rows(folder, rows, path):
    """The checkpoint with `rows` rows of embedding and head; logits of new rows are like those of others."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(rows, mean_resizing=False)
    model.get_output_embeddings().weight.data[258:].normal_(std=0.1, generator=torch.manual_seed(0))
    model.save_pretrained(path)
    shutil.copy(folder / "tokenizer.json", path)
    shutil.copy(folder / "tokenizer_config.json", path)
    return path


@pytest.mark.parametrize("rows", [(330, 258), (258, 330), (330, 300)])
def test_target_and_draft_may_be_padded_differently(saved, tmp_path, rows):
    """The target's padding rows are ids that its draft may have no row for."""
    target, draft = (
        with_rows(saved, number, tmp_path / name)
        for number, name in zip(rows, ("target", "draft"), strict=True)
    )
    tree = ("--depth", 3, "--branch", 2, "--tau", "none", "--runs", 1, "--tokens", 24)
    done = decode(tmp_path, "--target", target, "--draft", draft, *tree, "--out", "record.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "record.json", command.DecodeRecord)
    (row,) = read_rows(tmp_path / "record.json", record)
    assert row["tokens"] == row["greedy"]
    assert rows[0] == 258 or max(row["greedy"]) >= 258, "the case is there"


def test_help_has_an_example_and_a_missing_target_is_said(tmp_path):
    shown = decode(tmp_path, "--help")
    assert shown.returncode == 0
    assert "--target results/model/DIGEST --draft lookup" in " ".join(shown.stdout.split())
    assert "--panel" in shown.stdout
    missing = decode(tmp_path)
    assert missing.returncode == 2
    assert "required: --target" in missing.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tau", "1.5"], r"--tau: Input should be less than 1"),
        (["--tau", "0"], r"--tau: Input should be greater than 0"),
        (["--tokens", "0"], r"--tokens: Input should be greater than 0"),
        (["--runs", "0"], r"--runs: Input should be greater than 0"),
        (["--depth", "0"], r"--depth: Input should be greater than 0"),
        (["--dtype", "int8"], r"--dtype: Input should be 'float32', 'bfloat16' or 'float16'"),
        (["--temperature", "0.7"], r"--temperature 0\.7: sampling is not supported"),
    ],
)
def test_a_bad_option_is_named(options, message):
    arguments = command.parser().parse_args(["--target", "t", *options])
    with pytest.raises(UserError, match=message):
        command.spec_of(arguments, PromptLookup(), 1)


def test_errors_of_the_job_are_one_line(saved, tmp_path):
    done = decode(tmp_path, "--target", saved, "--max-nodes", 3, "--tokens", 4)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: --max-nodes: 3 nodes cannot hold a path of depth 7; raise it or lower the depth"
    ]
    done = decode(tmp_path, "--target", saved, "--prompt", "x" * 4096, "--tokens", 4)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "4096 tokens and 4 new ones exceed the target's 4096 positions; shorten it to at most 4092" in line
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("draft", ["lookup", "ngram", "draft"])
def test_more_children_than_the_vocabulary_has_tokens_are_refused(draft, inputs, saved, tmp_path):
    options = ("--target", saved, "--draft", inputs.get(draft, draft), "--depth", 1, "--tokens", 4)
    done = decode(tmp_path, *options, "--branch", 5000, "--max-nodes", 9000)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"error: shape\.branching: 5000 children per node, but the drafter knows \d+ tokens; lower it", line
    )


def test_a_record_that_cannot_be_written_is_noticed_before_anything_runs(saved, tmp_path):
    (tmp_path / "file").write_text("")
    # The target does not exist, so the path of the record is checked before it.
    for out in (tmp_path, tmp_path / "file" / "record.json"):
        done = decode(tmp_path, "--target", saved / "nowhere", "--out", out)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: --out: {out} cannot be written (")
    assert (tmp_path / "file").read_text() == ""
    line = ["ablations.dynatree.written", "--model", "m", "--teacher", "t", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("error: --out: ")) == (1, True)


def test_what_is_no_checkpoint_is_refused(folder, saved, tmp_path):
    with pytest.raises(UserError, match=r"--target .*nowhere: neither a folder nor a manifest\.json"):
        by_hand.checkpoint_manifest(tmp_path / "nowhere", "--target", tmp_path / "made")
    with pytest.raises(UserError, match=r"--target .*weights\.bin: neither"):
        (tmp_path / "weights.bin").write_bytes(b"x")
        by_hand.checkpoint_manifest(tmp_path / "weights.bin", "--target", tmp_path / "made")
    (tmp_path / "bare").mkdir()
    shutil.copy(saved / "config.json", tmp_path / "bare")
    with pytest.raises(UserError, match=r"--target .*bare: no tokenizer\.json; name a folder"):
        by_hand.checkpoint_manifest(tmp_path / "bare", "--target", tmp_path / "made")


def test_a_draft_is_known_by_what_made_it(inputs, saved, tmp_path):
    def draft_input(draft, folder_name="made"):
        return by_hand.drafter_input(str(draft), 8.0, tmp_path / folder_name)

    assert draft_input("none") == (None, {})
    assert draft_input("lookup") == (PromptLookup(), {})
    assert draft_input(inputs["ngram"]) == (NgramDraftSpec(context_weight=8.0), {"ngram": inputs["ngram"]})
    assert draft_input(inputs["draft"].parent) == (NeuralDraftSpec(), {"draft": inputs["draft"]})
    drafting, draft_inputs = draft_input(saved)
    assert drafting == NeuralDraftSpec()
    assert (draft_inputs["draft"].parent / "config.json").samefile(saved / "config.json")
    distilled = tmp_path / "distilled" / "manifest.json"
    distilled.parent.mkdir()
    manifest = read_contract(inputs["ngram"], Manifest)
    distilled.write_text(
        manifest.model_copy(update={"module": "ablations.dynatree.distil"}).model_dump_json()
    )
    assert draft_input(distilled) == (DistilledDraftSpec(), {"distilled": distilled})
    with pytest.raises(UserError, match=r"what ablations\.lm\.prepare_text makes is no draft"):
        draft_input(inputs["prompts"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, r"--prompts .*none\.txt: no such file"),
        ("latin.txt", "caf\xe9".encode("latin-1"), r"--prompts .*latin\.txt: not UTF-8"),
        ("wrong.jsonl", b'{"prompt": "a"}\n{"question": "b"}\n', r"wrong\.jsonl: record 2 is no JSON object"),
        ("broken.jsonl", b"{", r"broken\.jsonl: record 1 is no JSON object"),
        ("empty.txt", b"\n  \n", r"--prompt, --prompts: an empty prompt has no next token"),
        ("null.jsonl", b'{"prompt": null}\n', r"null\.jsonl: record 1 is no JSON object with text under"),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl: record 1 is no JSON object"),
        ("half.jsonl", b'{"prompt": "\\ud800"}\n', r"prompt 1 is no Unicode text; correct it"),
        ("wide.txt", "wide".encode("utf-16-le"), r"wide\.txt: not UTF-8"),
        ("table.csv", b"a,b\n", r"table\.csv: holds records, not lines; save them as JSON lines"),
        ("rows.JSON", b"[]\n", r"rows\.JSON: holds records, not lines"),
    ],
)
def test_a_bad_file_of_prompts_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        by_hand.prompts_manifest(by_hand.read_prompt_file(tmp_path / name), tmp_path / "made")


def test_prompts_are_read_one_a_line(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\ntwo words\n")
    assert by_hand.read_prompt_file(tmp_path / "prompts.txt") == ["one", "two words"]


def test_a_byte_order_mark_is_no_part_of_a_prompt_and_capitals_name_the_same_kind(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n", encoding="utf-8-sig")
    assert by_hand.read_prompt_file(tmp_path / "prompts.txt") == ["one"]
    for name in ("prompts.JSONL", "prompts.ndjson"):
        (tmp_path / name).write_text('{"prompt": "one"}\n', encoding="utf-8-sig")
        assert by_hand.read_prompt_file(tmp_path / name) == ["one"]


def test_a_negative_weight_and_a_target_of_another_kind_are_named(saved, tmp_path):
    with pytest.raises(UserError, match=r"--context-weight -1\.0: a weight is 0 or more"):
        by_hand.drafter_input(str(saved), -1.0, tmp_path / "made")
    (tmp_path / "odd").mkdir()
    shutil.copy(saved / "tokenizer.json", tmp_path / "odd")
    (tmp_path / "odd/config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="model type 't5' is not supported"):
        by_hand.checkpoint_manifest(tmp_path / "odd", "--target", tmp_path / "made")
    (tmp_path / "odd/config.json").write_text('{"model_type": "nobody_knows"}')
    with pytest.raises(UserError, match=r"--target .*odd: config\.json cannot be loaded: .*nobody_knows"):
        by_hand.checkpoint_manifest(tmp_path / "odd", "--target", tmp_path / "made_again")
