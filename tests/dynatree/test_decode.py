"""Decoding configurations side by side: each as alone, what it lacks, and none hurt by another's failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablations.core.block import block_path
from ablations.core.panel import Entry, Panel, PanelFile
from ablations.core.record import read_record
from ablations.dynatree import arm as arms
from ablations.dynatree.arm import DecoderBuilder
from ablations.dynatree.decode import decode
from ablations.dynatree.drafters import build
from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.decode import DecodeSample
from ablations.specs.lm import Compute
from tests.dynatree.noisy_models import tiny_model
from tests.dynatree.workspace import (
    CALIBRATED,
    CODE,
    COST_AWARE,
    DYNAMIC,
    HISTORY,
    LINEAR,
    LOOKUP,
    NEURAL,
    NGRAM,
    PROMPTS,
    PRUNED,
    TREE,
    WHOLE,
    DecodeBlock,
    blocks,
    decode_spec,
    decoded,
    make_inputs,
    series,
    write_job,
)

SHORT = {"prompts": CODE | {"kind": "short", "tokens": 17}}
ARMS = {
    "ar": decode_spec(None, None, None),
    "line": decode_spec(NGRAM, LINEAR, WHOLE),
    "tree": decode_spec(NGRAM, TREE, PRUNED),
    "dynamic": decode_spec(NGRAM, TREE, PRUNED, **DYNAMIC),
    "history": decode_spec(NGRAM, TREE, PRUNED, **HISTORY),
    "cost aware": decode_spec(NGRAM, TREE, CALIBRATED, **COST_AWARE),
    "lookup": decode_spec(LOOKUP, TREE, PRUNED),
    "neural": decode_spec(NEURAL, TREE, WHOLE),
    "neural line": decode_spec(NEURAL, LINEAR, WHOLE),
    "neural, few": decode_spec(NEURAL, TREE, WHOLE) | SHORT,
    "tree, few": decode_spec(NGRAM, TREE, PRUNED) | SHORT,
}
TIMES = {"pairs", "draft_seconds", "verify_seconds", "bookkeeping_seconds"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("decode")


@pytest.fixture(scope="module")
def inputs(folder) -> dict[str, Path]:
    return make_inputs(folder)


def untimed(samples: tuple[DecodeSample, ...]) -> list[dict]:
    return [sample.model_dump(exclude=TIMES) for sample in samples]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_arm_of_a_panel_emits_what_it_emits_alone(dtype, folder, inputs, tmp_path):
    """Tokens, counts, ties and their margin depend neither on the other arms nor on the arms' order."""
    names, count, changes = {
        "float32": (list(ARMS), 2, {}),
        # Where rounding decides ties.
        "bfloat16": (["ar", "tree", "line"], 4, {"new_tokens": 40}),
    }[dtype]
    changes |= {"repeats": 1, "compute": {"dtype": dtype, "threads": 1}}
    specs = {name: ARMS[name] | changes for name in names}
    alone = {
        name: decoded(folder, f"{name} {dtype}", spec, inputs, count=count) for name, spec in specs.items()
    }
    for order in (list(specs), list(specs)[::-1]):
        members = {
            name: series(tmp_path, f"{name} after {order[0]}", specs[name], inputs, [(0, count)])
            for name in order
        }
        decode(Panel(list(members.values())))
        for name, member in members.items():
            together = blocks(member, count)
            assert together.rows == alone[name].rows
            assert untimed(together.samples) == untimed(alone[name].samples)
            assert together.blocks[0].totals.tie_margin == alone[name].blocks[0].totals.tie_margin
    if dtype == "bfloat16":
        assert any(sample.ties for one in alone.values() for sample in one.samples)


def test_arms_and_what_they_draft_from_are_loaded_once(inputs, tmp_path, monkeypatch):
    calls: dict[str, list] = {"arm": [], "cache": [], "counts": [], "model": []}

    def counted(name, function):
        return lambda *args, **named: calls[name].append(args) or function(*args, **named)

    monkeypatch.setattr(DecoderBuilder, "arm", counted("arm", DecoderBuilder.arm))
    monkeypatch.setattr(arms, "cache_for", counted("cache", arms.cache_for))
    monkeypatch.setattr(NgramCounts, "load", counted("counts", NgramCounts.load))
    monkeypatch.setattr(build, "load_model", counted("model", build.load_model))
    decode(Panel([series(tmp_path, name, spec, inputs) for name, spec in ARMS.items()]))
    # Two arms run on both kinds of prompts.
    assert len(calls["arm"]) == len(ARMS) - 2
    assert len(calls["counts"]) == len(calls["model"]) == 1
    # Autoregressive decoding, as arm and as reference; trees of up to 3, 12, 30 and 256 nodes.
    assert sorted(rows for _, _, rows in calls["cache"]) == [1, 4, 13, 31, 257]


def test_a_series_gets_the_prompts_that_it_lacks(inputs, tmp_path):
    whole = decoded(tmp_path, "whole", ARMS["tree"], inputs, count=4)
    half = series(tmp_path, "half", ARMS["tree"], inputs, [(0, 2)])
    decode(Panel([half]))
    first = block_path(half.run.out, (0, 2))
    before = first.read_bytes()
    half = series(tmp_path, "half", ARMS["tree"], inputs, [(2, 4)])
    other = series(tmp_path, "other", ARMS["lookup"], inputs, [(0, 2), (2, 4)])
    decode(Panel([half, other]))
    assert first.read_bytes() == before
    assert untimed(blocks(half, 4).samples) == untimed(whole.samples)
    assert blocks(half, 4).rows == whole.rows
    assert len(blocks(other, 4).blocks) == 2
    # A process that finds all there does nothing.
    again = series(tmp_path, "half", ARMS["tree"], inputs, [(2, 4)])
    decode(Panel([again]))
    assert again.active
    assert first.read_bytes() == before


def test_the_reference_runs_twice_a_round(inputs, tmp_path):
    for sample in decoded(tmp_path, "tree", ARMS["tree"], inputs).samples:
        for pair in sample.pairs:
            # Times of separate runs: the clock has nanoseconds.
            assert len({pair.arm, pair.reference, pair.again}) == 3


def wrong_from(number: int, whole):
    """Speculative decoding that emits a wrong last token where prompts are looked up, from a run on."""
    runs = 0

    def decode_wrongly(target, cache, draft, prompt, limit):
        nonlocal runs
        generation = whole(target, cache, draft, prompt, limit)
        if isinstance(draft.drafter, PromptLookupDrafter):
            runs += 1
            if runs > number:
                generation.tokens[-1] = (generation.tokens[-1] + 1) % target.lm_head.out_features
        return generation

    return decode_wrongly


def test_an_arm_that_departs_fails_alone_and_keeps_its_blocks(inputs, tmp_path, monkeypatch, capsys):
    spans = [(0, 1), (1, 2), (2, 3)]
    # Three runs to warm up, and two or three rounds of the first prompt.
    monkeypatch.setattr(arms, "decode_speculative", wrong_from(3 + 3, arms.decode_speculative))
    members = {
        name: series(tmp_path, name, ARMS[name], inputs, spans) for name in ("tree", "lookup", "ar", "neural")
    }
    decode(Panel(list(members.values())))
    failed = members.pop("lookup")
    for member in members.values():
        assert len(blocks(member, 3).samples) == 3
    document = blocks(members["ar"], 3).samples[1].document
    assert failed.failure is not None and failed.failure.startswith(f"prompt {document}: new token 11 is not")
    assert [path.name for path in failed.run.out.glob("*.json")] == ["0-1.json"]
    assert f"error: lookup: {failed.failure}" in capsys.readouterr().err


def test_bad_input_of_one_arm_is_its_own(inputs, tmp_path):
    good = series(tmp_path, "good", ARMS["tree"], inputs)
    bad = {
        "costs": series(
            tmp_path, "costs", ARMS["cost aware"], {k: v for k, v in inputs.items() if k != "costs"}
        ),
        "40 documents": series(tmp_path, "few", ARMS["tree"] | SHORT, inputs, [(40, 41)]),
        "5000 children": series(
            tmp_path,
            "wide",
            decode_spec(NGRAM, TREE | {"branching": 5000, "depth": 1}, WHOLE),
            inputs,
        ),
    }
    decode(Panel([*bad.values(), good]))
    assert len(blocks(good).samples) == PROMPTS
    for member in bad.values():
        assert not member.active
        assert not member.run.out.exists()
    there = sorted(inputs.keys() - {"costs"})
    assert bad["costs"].failure.endswith(f"no input named 'costs' (has {there})")
    assert "41 documents of at least 17 tokens asked for, 40 found" in bad["40 documents"].failure
    assert bad["5000 children"].failure.startswith("shape.branching: 5000 children per node")


@torch.inference_mode()
def test_caches_are_shared_by_size_and_cleared():
    builder = DecoderBuilder(tiny_model("llama"), Compute(threads=1), 64)

    def built(shape) -> arms.Decoder:
        spec = ArmSpec.model_validate({"drafter": LOOKUP, "shape": shape, "pruning": WHOLE})
        return builder.arm(spec, Path)

    first, second, line = built(TREE), built(TREE), built(LINEAR)
    cache = first.args[1]
    assert cache is second.args[1]
    assert cache is not line.args[1]
    assert builder.autoregressive().args[1] is builder.autoregressive().args[1]
    tokens = first([1, 2, 3], 9).tokens
    # What an arm that failed may leave: a captured forward multiplies masked rows by zero.
    cache.keys[0].fill_(float("nan"))
    cache.values[-1].fill_(float("nan"))
    builder.clear_caches()
    assert not any(rows.count_nonzero() for rows in (*cache.keys, *cache.values))
    assert second([1, 2, 3], 9).tokens == tokens == builder.autoregressive()([1, 2, 3], 9).tokens


def test_the_command_line_names_what_failed_and_does_the_rest(inputs, tmp_path):
    (tmp_path / "spec").mkdir()
    (tmp_path / "panel").mkdir()
    entries = []
    for name, spec in (("good", ARMS["tree"]), ("bad", ARMS["tree"] | {"new_tokens": 4080})):
        path = write_job(tmp_path / "spec", name, spec, inputs, "ablations.dynatree.decode")
        path.rename(tmp_path / "spec" / f"{name}.json")
        entries.append(Entry(digest=name, label=f"{name} arm", out=str(tmp_path / name), spans=((0, 2),)))
    panel = tmp_path / "panel" / "p.json"
    module = "ablations.dynatree.decode"
    panel.write_text(PanelFile(rule="decode", module=module, entries=tuple(entries)).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", module, "--panel", panel],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "bad arm: prompt" in lines[0] and "exceed the target's 4096 positions" in lines[0]
    assert lines[1] == "error: 1 of 2 failed: bad arm (their errors are above)"
    assert len(read_record(tmp_path / "good" / "0-2.json", DecodeBlock).samples) == 2
    assert not (tmp_path / "bad").exists()
