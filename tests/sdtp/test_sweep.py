import math
import time

import pytest
import torch
from safetensors.torch import load_file

from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.panel import Panel
from ablations.core.record import read_contract
from ablations.lm import timing
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.sdtp import sweep as sweep_module
from ablations.sdtp.pruned.decoding import greedy_decode
from ablations.sdtp.pruned.living import LivingPrompt
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores.table import SALIENCY_FILE
from ablations.sdtp.sweep import Loaded
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.sweep import Sweep
from tests.lm.llama_like import BOS, SYMBOLS, save_llama_like
from tests.sdtp.whole_jobs import whole_job
from tests.sdtp.workspace import JOBS, PRESERVE, WINDOWS


@pytest.fixture
def measured(workspace) -> Sweep:
    return read_contract(workspace.run("sweep", "sweep.json"), Sweep)


def test_points_have_times_and_costs(measured):
    pruned, whole = measured.points
    assert (pruned.keep_ratio, whole.keep_ratio) == (0.7, 1.0)
    for point in measured.points:
        for pairs in (point.prefill, point.end_to_end):
            assert len(pairs) in (2, 3), "one more round where the first ones differ"
            assert all(pair.again is not None for pair in pairs)
        assert 0.0 < point.overhead < 1.0
    assert len(measured.library) in (2, 3)
    # 300 tokens on layer 0, 210 from layer 1 on, 147 from layer 3 on; hidden 64, 2 heads of 16 keys.
    assert whole.kv_bytes == whole.reference_kv_bytes == 2 * 4 * 2 * 16 * 5 * 300
    assert pruned.kv_bytes == 2 * 4 * 2 * 16 * (300 + 2 * 210 + 2 * 147)
    assert pruned.flops < pruned.reference_flops == whole.reference_flops
    # Scorers of width 16 on all 300 tokens, twice: 64 inputs and two outputs.
    assert whole.flops - whole.reference_flops == 2 * 2 * 300 * 16 * (64 + 2)


def test_prompt_is_heldout_text_one_document_after_another(workspace):
    documents = read_corpus(workspace.folder / "text" / "manifest.json")
    heldout = "".join(document.text for document in documents if document.split == "heldout")
    job = read_job(workspace.spec_file("sweep", {"tokens": 500}, {}), JOBS["sweep"][0])
    prompt = Loaded(Run(job, workspace.folder / "x", None)).prompt(job)
    tokenizer = load_tokenizer(workspace.folder / "model" / "manifest.json")
    # A byte each.
    assert tokenizer.decode(prompt) == heldout[:500]


def test_every_prompt_of_a_target_with_bos_begins_with_it(workspace, tmp_path):
    """In the sweep, the saliency table and an evaluation, whose record says so."""
    bos = SYMBOLS.index(BOS)
    saved = save_llama_like(tmp_path / "saved", layers=5)
    workspace.run(
        "model", "bos/manifest.json", model={"source": "pretrained", "name": str(saved), "layers": 5}
    )
    inputs = {"model": "bos"}
    job = read_job(workspace.spec_file("sweep", {"tokens": 500}, inputs), JOBS["sweep"][0])
    prompt = Loaded(Run(job, workspace.folder / "x", None)).prompt(job).tolist()
    assert (len(prompt), prompt[0], prompt.count(bos)) == (500, bos, 1)
    table = load_file(
        workspace.run("saliency", "bos-saliency/manifest.json", inputs).with_name(SALIENCY_FILE)
    )
    assert table["ids"][:, 0].tolist() == [bos] * 8
    inputs |= {"saliency": "bos-saliency"}
    evaluated = workspace.evaluate(name="bos", inputs=inputs, importance="random", selection="top_k")
    assert {block.environment.prompt_start for block in evaluated.quality.blocks} == {BOS}
    assert {sample.living[0] for sample in evaluated.samples} == {WINDOWS["prompt_tokens"]}


def test_timed_arms_run_what_they_say(workspace, monkeypatch):
    """Per round one pruned prefill and two dense ones; the overhead is measured in prefills of its own."""
    counts = {"pruned": 0, "dense": 0}
    begin = LivingPrompt.__init__

    def counting(self, lm, pruning, *rest):
        counts["pruned" if pruning.layers else "dense"] += 1
        begin(self, lm, pruning, *rest)

    monkeypatch.setattr(LivingPrompt, "__init__", counting)
    # No arm gets one more round.
    monkeypatch.setattr(timing, "DIFFERENCE", math.inf)
    workspace.run("sweep", "counted.json", keep_ratios=[0.7, 0.5, 0.3])
    # One untimed round and two timed ones. Library: the dense one is the arm, once per round.
    # Prefill and end to end: each arm once per round. Overhead: two each. Costs: one each.
    assert counts == {"pruned": 3 * (3 + 3 + 2 + 1), "dense": 3 + (1 + 2 * 2) * 2 + 1}


def test_a_round_that_differs_is_followed_by_one_more(workspace, monkeypatch):
    monkeypatch.setattr(timing, "DIFFERENCE", 1.0)
    measured = read_contract(workspace.run("sweep", "differing.json"), Sweep)
    for point in measured.points:
        assert len(point.prefill) == len(point.end_to_end) == 3
    assert len(measured.library) == 3


def test_lengths_share_the_model_and_one_that_is_too_long_fails_alone(workspace, monkeypatch):
    loads = []
    load, read = sweep_module.load_model, sweep_module.open_pruner
    monkeypatch.setattr(sweep_module, "load_model", lambda *rest: loads.append("model") or load(*rest))
    monkeypatch.setattr(sweep_module, "open_pruner", lambda *rest: loads.append("pruner") or read(*rest))
    lengths = {"there": 100, "short": 200, "long": 4095, "middle": 300}
    members = {name: whole_job(workspace, "sweep", name, tokens=tokens) for name, tokens in lengths.items()}
    there = members["there"].run.out
    there.parent.mkdir()
    there.write_text("as it was")
    start = time.perf_counter()
    sweep_module.sweep(Panel([*members.values()]))
    total = time.perf_counter() - start
    # Packed weights need a stock model beside them.
    stock = loads.count("model") - 1
    assert loads == ["model", "pruner"] + ["model"] * stock
    assert there.read_text() == "as it was"
    assert "sdtp.sweep.lengths" in members["long"].failure
    assert not members["long"].run.out.exists()
    results = [read_contract(members[name].run.out, Sweep) for name in ("short", "middle")]
    assert stock == (results[0].weight_layout != "stock")
    assert [result.spec.tokens for result in results] == [200, 300]
    # 300 tokens as in a process of their own, whatever came before.
    assert results[1].points[0].kv_bytes == 2 * 4 * 2 * 16 * (300 + 2 * 210 + 2 * 147)
    assert results[0].points[0].kv_bytes == 2 * 4 * 2 * 16 * (200 + 2 * 140 + 2 * 98)
    assert sum(result.environment.seconds for result in results) < total


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 4095}, r"sdtp\.sweep\.lengths.*4096 positions; lower it to at most 4093"),
        ({"tokens": 4000}, r"sdtp\.sweep\.lengths: 4000 tokens asked for.*larger text"),
        ({"layers": [1, 9]}, "layer 9 does not exist"),
        ({"layers": [1, 2]}, r"pruner for layers \[1, 3\]"),
    ],
)
def test_bad_input_is_one_line(workspace, change, message):
    with pytest.raises(UserError, match=message) as caught:
        workspace.run("sweep", "bad.json", **change)
    assert "\n" not in str(caught.value)
    assert not (workspace.folder / "bad.json").exists()


def test_decoding_is_the_model_s_own_greedy_text(lm, ids):
    prompt = ids[:40]
    cache = lm.new_cache(60)
    tokens = greedy_decode(lm, prefill(lm, prompt, cache), cache, 12)
    expected = prompt
    for _ in range(12):
        expected = torch.cat([expected, lm.model(expected[None]).logits[0, -1:].argmax(-1)])
    assert tokens.tolist() == expected[40:].tolist()
    assert cache.lengths == [51] * 6


def test_decoding_goes_on_from_a_pruned_cache(llama, ids):
    """The second token is that of a model that reads the first one after the survivors."""
    pruning = Pruning((2,), (0.5,), Preserve(**PRESERVE))

    def recent(stage, states, indices):
        return indices.float()

    cache = llama.new_cache(60)
    prefilled = prefill(llama, ids[:40], cache, pruning, recent)
    token = prefilled.logits.argmax()[None, None]
    tokens = greedy_decode(llama, prefilled, cache, 2)
    cache.truncate(0)
    prefill(llama, ids[:40], cache, pruning, recent)
    expected = llama.forward(token, torch.tensor([[40]]), None, cache).argmax()
    assert tokens.tolist() == [token.item(), expected.item()]
    assert cache.lengths == [41, 41, 21, 21, 21, 21]
