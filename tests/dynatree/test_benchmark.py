import pytest
import torch

from ablations.core.errors import UserError
from ablations.core.job import read_job
from ablations.core.record import Record, read_record
from ablations.dynatree import benchmark
from ablations.dynatree.benchmark import Bench, build_decoders, rotated
from ablations.dynatree.decoding import Generation, decode_autoregressive
from ablations.dynatree.exactness import FLOAT32_MARGIN
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.prompts import read_prompts
from ablations.lm.checkpoint import load_model
from ablations.lm.device import configure
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.benchmark import BenchmarkSample, BenchmarkSpec
from ablations.specs.dynatree.exactness import DecodeTotals
from tests.dynatree.noisy_models import noisy_copy, tiny_model
from tests.dynatree.workspace import (
    CALIBRATED,
    COST_AWARE,
    COST_SPEC,
    NEURAL,
    NEW_TOKENS,
    NGRAM,
    PRUNED,
    TREE,
    WHOLE,
    decode_spec,
    make_inputs,
    run_job,
    write_job,
)

ROLES = ("draft", "ngram", "costs")
OWN = {"F1": (None, None, None), "F4": (NGRAM, TREE, PRUNED), "N3": (NEURAL, TREE, WHOLE)}


def arm(drafter, shape, pruning, **changes) -> dict:
    # Inputs have other names than in the drafters, as in a study with two drafts.
    inputs = {role: f"{role}_1" for role in ROLES}
    return {"drafter": drafter, "shape": shape, "pruning": pruning, "inputs": inputs} | changes


def spec(**changes) -> dict:
    common = decode_spec(None, None, None)
    settings = {key: common[key] for key in ("new_tokens", "compute")} | {"prompts": COST_SPEC["prompts"]}
    arms = {name: arm(*parts) for name, parts in OWN.items()}
    arms["O1"] = arm(NGRAM, TREE, CALIBRATED, prompts=1, **COST_AWARE)
    transformers = {
        "HF": {"method": "generate"},
        "HF-lookup": {"method": "prompt_lookup", "max_matching_ngram_size": 3},
        "HF-assisted": {"method": "assisted", "num_assistant_tokens_schedule": "heuristic"},
    }
    further = {"arms": arms, "transformers": transformers, "assistant": "draft_1", "repeats": 2, "warmup": 1}
    return settings | further | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def inputs(folder):
    manifests = make_inputs(folder)
    return {f"{name}_1" if name in ROLES else name: path for name, path in manifests.items()}


def test_every_arm_decodes_every_prompt_as_generate_does(folder, inputs):
    out = run_job(folder, "all", BenchmarkSpec, benchmark.run, spec(), inputs)
    record = read_record(out, Record[BenchmarkSpec, BenchmarkSample, DecodeTotals])
    first, second = record.samples
    assert list(first.runs) == ["F1", "F4", "N3", "O1", "HF", "HF-lookup", "HF-assisted"]
    assert set(first.runs) - set(second.runs) == {"O1"}
    for sample in record.samples:
        for name, run in sample.runs.items():
            assert run.matched
            assert run.ties == 0
            assert run.new_tokens == sample.runs["HF"].new_tokens <= NEW_TOKENS
            assert len(run.seconds) == 2
            assert run.first_seconds < run.seconds[-1]
            own = run.draft_seconds + run.verify_seconds + run.bookkeeping_seconds
            assert (own > 0) == (not name.startswith("HF"))
            assert (run.drafted > 0) == (name in ("F4", "N3", "O1"))
        for name in ("F1", "HF"):
            assert sample.runs[name].target_forwards == sample.runs[name].new_tokens - 1
    assert record.totals.tie_margin == FLOAT32_MARGIN


def test_assisted_settings_are_left_out_without_an_assistant(folder, inputs):
    job = read_job(write_job(folder, "alone", spec(assistant=None), inputs), BenchmarkSpec)
    target = load_model(job.path("model"), job.spec.compute, configure(job.spec.compute))
    assert set(build_decoders(job, target, 64)) == {"F1", "F4", "N3", "O1", "HF", "HF-lookup"}


@pytest.mark.parametrize("rows", [250, 320])
def test_an_assistant_of_other_padding_assists(folder, inputs, rows):
    """`generate` refuses an assistant of another vocabulary size: it infers another tokenizer."""
    job = read_job(
        write_job(folder, "padded", spec(arms={"F1": arm(None, None, None)}), inputs), BenchmarkSpec
    )
    target = load_model(job.path("model"), job.spec.compute, configure(job.spec.compute))
    target.model.resize_token_embeddings(rows, mean_resizing=False)
    target = LayeredLM(target.model)
    decoders = build_decoders(job, target, 64)
    prompt = read_prompts(job, target, job.spec.new_tokens)[0].ids.tolist()
    assert decoders["HF-assisted"](prompt, 12).tokens == decoders["HF"](prompt, 12).tokens


@torch.inference_mode()
def test_an_arm_that_departs_from_generate_is_named(folder, inputs):
    job = read_job(write_job(folder, "wrong", spec(), inputs), BenchmarkSpec)
    target = load_model(job.path("model"), job.spec.compute, configure(job.spec.compute))
    decoders = build_decoders(job, target, 64)

    def wrong(prompt, limit) -> Generation:
        generation = decoders["F1"](prompt, limit)
        last = (generation.tokens[-1] + 1) % target.lm_head.out_features
        generation.tokens[-1] = last
        return generation

    window = read_prompts(job, target, job.spec.new_tokens)[0]
    bench = Bench(job.spec, target, decoders | {"F4": wrong})
    with benchmark.tqdm(disable=True) as progress:
        bench.measure(window, ["F1", "HF"], 0, progress)
        with pytest.raises(UserError, match=rf"prompt {window.document} \(F4\): new token 11 is not"):
            bench.measure(window, ["F4", "HF"], 0, progress)


def test_a_benchmark_needs_plain_generate(folder, inputs):
    broken = spec(transformers={"HF-lookup": {"method": "prompt_lookup"}})
    with pytest.raises(UserError, match="one entry needs 'method: generate'"):
        run_job(folder, "none", BenchmarkSpec, benchmark.run, broken, inputs)


def test_each_arm_has_each_place_in_turn():
    names = ["a", "b", "c"]
    orders = [rotated(names, turn) for turn in range(6)]
    assert all(sorted(order) == names for order in orders)
    # Over a whole turn every arm has the same mean place.
    assert {name: sum(order.index(name) for order in orders) for name in names} == dict.fromkeys(names, 6)
    assert {order[0] for order in orders} == set(names)


@torch.inference_mode()
@pytest.mark.parametrize("schedule", ["constant", "heuristic", "heuristic_transient"])
def test_assisted_generation_emits_the_greedy_tokens_and_reads_its_settings(schedule):
    target = tiny_model("llama")
    assistant = noisy_copy(target, 0.02).model
    prompt = list(range(3, 23))
    greedy = decode_autoregressive(target, target.new_cache(128), prompt, 40).tokens
    options = {
        "num_assistant_tokens": 4,
        "num_assistant_tokens_schedule": schedule,
        "assistant_confidence_threshold": 0.0,
    }
    for _ in range(2):
        generation = decode_with_transformers(target, prompt, 40, assistant, options)
        assert generation.tokens == greedy
        assert 4 < len(generation.accepted) < len(greedy) - 1
        # The first round is part of the prefill.
        assert len(greedy) - sum(generation.accepted) - len(generation.accepted) in range(1, 6)
        if schedule == "constant":
            assert max(generation.accepted) == 4


@torch.inference_mode()
def test_prompt_lookup_of_transformers_copies_from_the_text():
    target = tiny_model("llama")
    prompt = list(range(3, 23))
    loop = decode_autoregressive(target, target.new_cache(256), prompt, 60).tokens
    generation = decode_with_transformers(
        target, [*prompt, *loop], 40, options={"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 2}
    )
    plain = decode_with_transformers(target, [*prompt, *loop], 40)
    assert generation.tokens == plain.tokens
    assert max(generation.accepted) <= 3
    assert plain.accepted == [0] * 39


def test_every_arm_decodes_each_of_its_prompts_untimed_first(folder, inputs, monkeypatch):
    runs, timed = [], []
    warm_up, stopwatch = benchmark.warm_up, benchmark.stopwatch

    def watched(decoder, prompt, new_tokens, whole):
        assert not timed
        warm_up(
            lambda *call: runs.append((len(call[0]), call[1])) or decoder(*call),
            prompt,
            new_tokens,
            whole,
        )

    monkeypatch.setattr(benchmark, "warm_up", watched)
    monkeypatch.setattr(benchmark, "stopwatch", lambda *work: timed.append(work) or stopwatch(*work))
    run_job(folder, "warm", BenchmarkSpec, benchmark.run, spec(new_tokens=9), inputs)
    # F1 and HF take a token at a time; the others decode all of their first prompt, and O1 has no other.
    assert sorted(runs) == sorted([(30, 8)] * 8 + [(30, 9)] * 5)
    assert len(timed) == 2 * 13


@pytest.mark.parametrize("new_tokens", [1, 3])
def test_few_new_tokens_are_measured(new_tokens, folder, inputs):
    out = run_job(folder, "few", BenchmarkSpec, benchmark.run, spec(new_tokens=new_tokens), inputs)
    record = read_record(out, Record[BenchmarkSpec, BenchmarkSample, DecodeTotals])
    assert {run.new_tokens for sample in record.samples for run in sample.runs.values()} == {new_tokens}
