"""Panels of evaluations: every kind of arm, alone and side by side."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from ablations.core.block import crash_path, missing, read_series
from ablations.core.errors import UserError
from ablations.core.panel import Panel
from ablations.core.record import read_record
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.sdtp import evaluate as job
from ablations.sdtp.evaluate import evaluate
from ablations.sdtp.evaluation import arm as arm_module
from ablations.sdtp.evaluation import prefills, quality
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.heldout import Heldout
from ablations.sdtp.evaluation.series import RetrievalBlock, TextBlock, require_positions
from ablations.sdtp.evaluation.unpruned import unpruned_prefill
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import read_saliency
from ablations.specs.lm import Compute
from tests.sdtp.workspace import COMPUTE, COUNTS, PROMPTS, SIZE

SALIENCY = {"measure": "norm", "loss_tokens": 8}
ORACLE = {"importance": "oracle", "saliency": {"measure": "norm", "loss_tokens": None}}
ARMS = {
    "baseline": {},
    "learned_distance": {"importance": "learned_distance"},
    "saliency": {"importance": "saliency", "saliency": SALIENCY},
    "oracle": ORACLE,
    "attention_last": {"importance": "attention_last"},
    "attention_window": {"importance": "attention_window"},
    "prior": {"importance": "prior"},
    "random": {"importance": "random"},
    "recent": {"importance": "recent"},
    "hidden_norm": {"importance": "hidden_norm"},
    "packed": {"positions": "packed"},
    "soft": {"mask": "soft"},
    "local": {"propagation": "local"},
    "stale_keys": {"propagation": "stale_keys"},
}


ALL = ("quality", "retrieval", "prefill")


def values(blocks):
    """Samples without times, and the kept indices."""
    return [sample.model_dump(exclude={"pairs"}) for sample in blocks.samples], blocks.rows


def test_a_panel_ends_in_blocks(workspace):
    result = workspace.evaluate(*ALL)
    assert [path.name for path in sorted((workspace.folder / "block" / "arm-quality").glob("*.json"))] == [
        "0-2.json",
        "2-4.json",
    ]
    assert {block.outcome.status for block in result.quality.blocks} == {"ok"}
    assert {block.label for block in result.quality.blocks} == {"arm"}
    assert all(block.environment.seconds > 0 for block in result.quality.blocks)
    assert len({sample.document for sample in result.samples}) == 4
    for sample in result.samples:
        assert sample.living == (48, 34, 34, 24, 24)
        assert 0 < abs(sample.nll - sample.reference_nll) < 1
        assert sample.kl > 0
        assert sample.agreement < 1
        assert sample.kv_bytes / result.totals.reference_kv_bytes == pytest.approx(164 / 240)
        assert sample.flops < result.totals.reference_prefill_flops
    totals = result.totals
    assert totals.keep_ratios == (0.7, 0.7)
    assert totals.peak_memory_bytes > 10**8
    assert len(totals.training.ranking) == 2
    assert [probe.kind for probe in result.probes] == ["passkey", "definition"]
    assert [probe.depth for probe in result.probes] == [0.2, 0.2]
    asked = {probe.document for probe in result.probes}
    assert len(asked) == 2
    assert not asked & {sample.document for sample in result.samples}
    assert [row["document"] for row in result.quality.rows] == [sample.document for sample in result.samples]
    for row in result.quality.rows:
        assert len(row["kept"]) == 24
        assert row["kept"] == sorted(row["kept"])
        assert {0, 1, 44, 45, 46, 47} <= set(row["kept"])
    assert [sample.document for sample in result.prefill.samples] == [
        sample.document for sample in result.samples[:2]
    ]
    for sample in result.prefill.samples:
        assert len(sample.pairs) in (2, 3)
        assert all(pair.again > 0 for pair in sample.pairs)
    assert result.prefill.rows == result.retrieval.rows == ()


def test_the_reference_is_what_transformers_computes(workspace):
    result = workspace.evaluate("quality", "retrieval", importance="recent")
    model, text = (workspace.folder / name / "manifest.json" for name in ("model", "text"))
    lm, heldout = load_model(model, Compute(), torch.device("cpu")), Heldout(load_tokenizer(model))
    for window, sample in zip(heldout.windows(text, 56, 4), result.samples, strict=True):
        logits = lm.model(window.ids[None], use_cache=False).logits[0, 47:-1]
        assert sample.document == window.document
        assert sample.reference_nll == pytest.approx(
            F.cross_entropy(logits, window.ids[48:]).item(), rel=1e-5
        )
    spec = workspace.member("retrieval", "x").spec
    for key, probe in zip(heldout.retrieval(text, spec.prompts, 2), result.probes, strict=True):
        whole = torch.cat([key.prompt, key.answer])
        logits = lm.model(whole[None], use_cache=False).logits[0, len(key.prompt) - 1 : -1]
        assert probe.reference_nll == pytest.approx(F.cross_entropy(logits, key.answer).item(), rel=1e-5)
        assert probe.reference_hit == torch.equal(logits.argmax(-1), key.answer)


def test_ratio_one_costs_no_quality(workspace):
    result = workspace.evaluate("quality", "retrieval", keep_ratios=[1.0, 1.0])
    for sample in result.samples:
        assert sample.nll == pytest.approx(sample.reference_nll, abs=1e-5)
        assert sample.agreement == 1
        assert sample.kl == pytest.approx(0, abs=1e-6)
    for probe in result.probes:
        assert probe.hit == probe.reference_hit
        assert probe.nll == pytest.approx(probe.reference_nll, abs=1e-5)


def test_side_by_side_every_arm_has_the_quality_that_it_has_alone(workspace):
    """To the bit; with other lengths of prompts and other prompts in the same panel."""
    workspace.run("calibration", selection="top_p")
    more = {
        "top_p": {"selection": "top_p"},
        "short": {"prompt_tokens": 40},
        "long": {"continuation_tokens": 20},
        "other keys": {"prompts": PROMPTS | {"tokens": 200}},
        "no keys": {"layers": [3], "keep_ratios": [0.5]},
    }
    measures = ("quality", "retrieval")
    alone, together = {}, {}
    for name, change in (ARMS | more).items():
        result = workspace.evaluate(*measures, name=name, **change)
        for measure in measures:
            own = {key: value for key, value in change.items() if key in result_fields(workspace, measure)}
            alone[name, measure] = values(getattr(result, measure))
            together[name, measure] = workspace.member(measure, f"side-{name}-{measure}", **own)
    evaluate(Panel([*together.values()]))
    assert (
        len({str(samples) for (_, measure), (samples, _) in alone.items() if measure == "quality"})
        == len(ARMS | more) - 1
    )
    for (name, measure), member in together.items():
        assert values(workspace.blocks(member, measure)) == alone[name, measure], (name, measure)


def result_fields(workspace, measure):
    return type(workspace.member(measure, "fields").spec).model_fields


@pytest.mark.parametrize("arm", [*ARMS, "top_p", "late", "local and packed", "attention and packed"])
def test_an_arm_that_begins_at_its_first_stage_is_the_whole_arm_to_the_bit(workspace, monkeypatch, arm):
    """Prefill, cache and continuation, against the arm's own computation of the layers below the stage."""
    more = {
        "top_p": {"selection": "top_p"},
        "late": {"layers": [3], "keep_ratios": [0.5]},
        "local and packed": {"propagation": "local", "positions": "packed"},
        "attention and packed": {"importance": "attention_window", "positions": "packed"},
    }
    if arm == "top_p":
        workspace.run("calibration", selection="top_p")
    compared = []
    begin = PrunedArm.prefill_from

    def both(self, unpruned, cache):
        prompt = unpruned.prompt
        whole_cache = self.lm.new_cache(cache.capacity)
        whole = self.prefill(prompt, whole_cache)
        result = begin(self, unpruned, cache)
        assert cache.lengths == whole_cache.lengths
        for layer, rows in enumerate(cache.lengths):
            for half in ("keys", "values"):
                ours, theirs = (getattr(one, half)[layer][:, :, :rows] for one in (cache, whole_cache))
                assert torch.equal(ours, theirs)
        assert torch.equal(result.logits, whole.logits)
        assert torch.equal(result.state, whole.state)
        assert torch.equal(result.kept, whole.kept)
        assert (result.position_offsets, result.scored) == (whole.position_offsets, whole.scored)
        for ours, theirs in zip(result.weights or (), whole.weights or (), strict=True):
            assert torch.equal(ours, theirs)
        states = continuation_states(self.lm, whole, whole_cache, prompt.ids[:6])
        lengths = list(cache.lengths)
        assert torch.equal(states, continuation_states(self.lm, result, cache, prompt.ids[:6]))
        cache.lengths = lengths
        compared.append(prompt.number)
        return result

    monkeypatch.setattr(PrunedArm, "prefill_from", both)
    workspace.evaluate("quality", "retrieval", **(ARMS | more)[arm])
    assert compared == [0, 1, 2, 3, 1_000_000, 1_000_001]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_arm_that_begins_at_its_first_stage_keeps_its_bits_in(workspace, monkeypatch, dtype):
    compute = COMPUTE | {"dtype": dtype}
    first = workspace.evaluate("quality", "retrieval", compute=compute)
    monkeypatch.setattr(
        PrunedArm, "prefill_from", lambda arm, unpruned, cache: arm.prefill(unpruned.prompt, cache)
    )
    second = workspace.evaluate("quality", "retrieval", compute=compute)
    assert values(first.quality) == values(second.quality)
    assert values(first.retrieval) == values(second.retrieval)
    exact = workspace.evaluate(compute=compute, keep_ratios=[1.0, 1.0])
    # The same rows run through the same kernels, so only pruning distinguishes the arms.
    assert {(sample.kl, sample.agreement) for sample in exact.samples} == {(0.0, 1.0)} or dtype == "float32"


def test_seed_moves_random_importance_alone(workspace):
    def run(**change):
        result = workspace.evaluate("quality", "retrieval", **change)
        return values(result.quality)[0], values(result.retrieval)[0]

    assert run(importance="random", seed=1) != run(importance="random", seed=2)
    assert run(importance="learned", seed=1) == run(importance="learned", seed=2)


def test_random_importance_needs_no_pruner(workspace):
    result = workspace.evaluate(importance="random", inputs={"pruner": "nowhere"})
    assert result.totals.training is None


def test_prior_of_fewer_stages_uses_their_own_curves(workspace):
    table = workspace.folder / "saliency" / "manifest.json"
    both, second = read_saliency(table, (1, 3)), read_saliency(table, (3,))
    assert torch.equal(both.saliency[:, 1:], second.saliency)
    result = workspace.evaluate(importance="prior", layers=[3], keep_ratios=[0.7])
    assert result.samples[0].living == (48, 48, 48, 34, 34)


def test_over_long_prompts(lm, workspace):
    with pytest.raises(UserError, match=r"prompt_tokens: .* 258 tokens exceed .* 256 .* at most 248"):
        require_positions(lm, 250, 8)
    with pytest.raises(UserError, match=r"evaluation\.prompt_tokens: prompt and continuation of"):
        workspace.evaluate(prompt_tokens=9000)
    lines = "".join(f'{{"text": "{letter * 9000}"}}\n' for letter in "abcdefghij")
    (workspace.folder / "long.jsonl").write_text(lines)
    source = {"source": "local", "path": str(workspace.folder / "long.jsonl"), "split": "heldout"}
    workspace.run("text", "long_text", text=source)
    with pytest.raises(UserError, match=r"retrieval\.tokens: \d+ tokens exceed the model"):
        workspace.evaluate(
            "retrieval", inputs={"text": "long_text"}, prompts={"tokens": 8000, "depths": [0.5]}
        )


def test_one_model_one_stock_copy_and_one_arm_of_each_configuration(workspace, monkeypatch):
    loaded, copies, pruners = [], [], []
    load, copy, pruner = job.load_model, arm_module.LayeredLM, arm_module.open_pruner
    monkeypatch.setattr(job, "load_model", lambda *rest: loaded.append(1) or load(*rest))
    monkeypatch.setattr(arm_module, "LayeredLM", lambda model: copies.append(1) or copy(model))
    monkeypatch.setattr(arm_module, "open_pruner", lambda *rest: pruners.append(1) or pruner(*rest))
    changes = [
        ARMS["saliency"],
        ARMS["saliency"] | {"keep_ratios": [0.5, 0.5]},
        {},
        {"keep_ratios": [0.5, 0.5]},
    ]
    members = [
        workspace.member(measure, f"shared-{index}-{measure}", **change)
        for index, change in enumerate(changes)
        for measure in ALL
    ]
    evaluate(Panel(members))
    assert all(missing(member.run.out, 2, SIZE) == () for member in members)
    assert (len(loaded), len(copies), len(pruners)) == (1, 1, 2)


def test_the_unpruned_model_reads_each_prompt_once(workspace, monkeypatch):
    read = []
    unpruned = quality.unpruned_prefill

    def counting(lm, prompt, *rest):
        read.append(tuple(prompt.ids.tolist()))
        return unpruned(lm, prompt, *rest)

    monkeypatch.setattr(quality, "unpruned_prefill", counting)
    members = [
        workspace.member(measure, f"once-{name}-{measure}", **ARMS[name])
        for name in ("baseline", "recent", "soft")
        for measure in ("quality", "retrieval")
    ]
    evaluate(Panel(members))
    assert len(read) == len(set(read)) == COUNTS["quality"] + COUNTS["retrieval"]


def test_a_crash_is_a_block_and_leaves_the_other_arms_whole(workspace):
    stale = [workspace.member(measure, f"crash-stale-{measure}", positions="stale") for measure in ALL]
    others = [workspace.member(measure, f"crash-other-{measure}") for measure in ALL]
    evaluate(Panel([stale[0], others[0], others[1], stale[1], stale[2], others[2]]))
    expected = workspace.evaluate("quality", "retrieval")
    for member, measure in zip(stale, ALL, strict=True):
        assert member.failure is None
        assert not member.active
        assert [path.name for path in member.run.out.iterdir()] == ["0-crashed.json"]
        assert missing(member.run.out, COUNTS[measure], SIZE) == ()
    crashed = read_record(crash_path(stale[0].run.out, 0), TextBlock)
    assert crashed.outcome.exception == "RuntimeError"
    assert crashed.outcome.place == "apply_rotary_pos_emb in transformers.models.llama.modeling_llama"
    assert (crashed.samples, crashed.totals, crashed.side) == ((), None, None)
    assert values(workspace.blocks(others[0], "quality")) == values(expected.quality)
    assert values(workspace.blocks(others[1], "retrieval")) == values(expected.retrieval)
    assert len(workspace.blocks(others[2], "prefill").samples) == 2


@pytest.mark.parametrize("error", [RuntimeError("shapes differ\nmore"), IndexError("x"), ValueError("x")])
def test_what_was_measured_before_a_crash_is_kept(workspace, monkeypatch, error):
    prefill = PrunedArm.prefill_from

    def broken(self, unpruned, cache):
        if self.pruning.keep_ratios == (0.6, 0.7) and unpruned.prompt.number == 3:
            raise error
        return prefill(self, unpruned, cache)

    monkeypatch.setattr(PrunedArm, "prefill_from", broken)
    name = f"late-crash-{type(error).__name__}"
    member = workspace.member("quality", name, keep_ratios=[0.6, 0.7])
    other = workspace.member("quality", f"{name}-other")
    evaluate(Panel([member, other]))
    assert sorted(path.name for path in member.run.out.glob("*.json")) == [
        "0-2.json",
        "2-3.json",
        "3-crashed.json",
    ]
    assert len(read_series(member.run.out, 3, TextBlock).samples) == 3
    outcome = read_series(member.run.out, 4, TextBlock).blocks[0].outcome
    assert (outcome.exception, outcome.message) == (type(error).__name__, str(error).splitlines()[0])
    assert outcome.place.endswith(f"broken in {__name__}")
    assert len(workspace.blocks(other, "quality").samples) == 4


def test_where_the_unpruned_prompt_does_not_run_either_the_arm_has_not_crashed(workspace, monkeypatch):
    calls = []

    def dying(lm, prompt, cache, layers=()):
        calls.append(layers)
        if not layers:
            raise RuntimeError("the device is gone")
        return unpruned_prefill(lm, prompt, cache, layers)

    monkeypatch.setattr(quality, "unpruned_prefill", dying)
    member = workspace.member("quality", "gone", positions="stale")
    with pytest.raises(RuntimeError, match="the device is gone"):
        evaluate(Panel([member]))
    assert not member.run.out.exists()
    assert len(calls) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError("x"), KeyError("x")])
def test_other_errors_are_no_findings(workspace, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(PrunedArm, "prefill_from", broken)
    with pytest.raises(type(error)):
        workspace.evaluate()
    assert not (workspace.folder / "block" / "arm-quality").exists()


def test_nan_of_one_arm_fails_it_alone(workspace, monkeypatch, capfd):
    compare = quality.quality

    def nan(pruned, unpruned, ids):
        return compare(pruned * torch.nan if failing[-1] == 0.6 else pruned, unpruned, ids)

    failing, prefill = [], PrunedArm.prefill_from

    def noted(self, *rest):
        failing.append(self.pruning.keep_ratios[0])
        return prefill(self, *rest)

    monkeypatch.setattr(PrunedArm, "prefill_from", noted)
    monkeypatch.setattr(quality, "quality", nan)
    bad = workspace.member("quality", "nan", label="bad arm", keep_ratios=[0.6, 0.7])
    missing_pruner = workspace.member("quality", "no-pruner", inputs={"pruner": "nowhere"})
    good = workspace.member("quality", "finite")
    evaluate(Panel([bad, missing_pruner, good]))
    message = "NaN or infinity in the NLL of document 'corpus.jsonl:57', computed in float32"
    assert message in bad.failure
    assert "input 'pruner' is missing" in missing_pruner.failure
    errors = capfd.readouterr().err
    assert f"error: bad arm: {bad.failure}" in errors
    assert f"error: no-pruner: {missing_pruner.failure}" in errors
    assert not bad.run.out.exists()
    assert good.failure is None
    assert len(workspace.blocks(good, "quality").samples) == 4


def test_half_covered_series_are_completed_and_nothing_is_measured_twice(workspace, monkeypatch):
    expected = workspace.evaluate(*ALL, name="whole")
    first = {measure: workspace.member(measure, f"half-{measure}", ((0, 2),)) for measure in ALL}
    evaluate(Panel([first["quality"]]))
    before = (first["quality"].run.out / "0-2.json").read_bytes()
    runs = {"quality": [], "prefill": []}
    begin, prefill = PrunedArm.prefill_from, PrunedArm.prefill

    def noted(self, unpruned, cache):
        runs["quality"].append(unpruned.prompt.number)
        return begin(self, unpruned, cache)

    def timed(self, prompt, cache):
        runs["prefill"].append(prompt.number)
        return prefill(self, prompt, cache)

    monkeypatch.setattr(PrunedArm, "prefill_from", noted)
    monkeypatch.setattr(PrunedArm, "prefill", timed)
    # As it was planned before the first block was there.
    rest = {
        measure: workspace.member(measure, f"half-{measure}", ((0, 2), (2, 4))) for measure in ("quality",)
    }
    rest["retrieval"] = workspace.member("retrieval", "half-retrieval")
    rest["prefill"] = workspace.member("prefill", "half-prefill")
    evaluate(Panel([*rest.values()]))
    assert runs["quality"] == [2, 3, 1_000_000, 1_000_001]
    assert set(runs["prefill"]) == {0, 1}
    assert (first["quality"].run.out / "0-2.json").read_bytes() == before
    for measure in ("quality", "retrieval"):
        assert values(workspace.blocks(rest[measure], measure)) == values(getattr(expected, measure))
    runs["quality"].clear()
    runs["prefill"].clear()
    again = [workspace.member(measure, f"half-{measure}", ((0, 2),)) for measure in ALL]
    evaluate(Panel(again))
    assert runs == {"quality": [], "prefill": []}


def test_a_lower_count_measures_nothing(workspace):
    workspace.evaluate(name="more")
    assert missing(workspace.folder / "block" / "more-quality", 3, SIZE) == ()
    assert len(read_series(workspace.folder / "block" / "more-quality", 3, TextBlock).samples) == 3


def test_more_prompts_are_more_of_the_same_series(workspace):
    """Also with random scores, whose numbers do not depend on how many documents or prompts there are."""
    few = workspace.evaluate("retrieval", name="few", importance="random").probes
    more = workspace.member("retrieval", "more-keys", ((0, 3), (3, 5)), importance="random")
    evaluate(Panel([more]))
    assert read_series(more.run.out, 5, RetrievalBlock).samples[:2] == few


def test_dropped_tokens_that_stay_are_counted(workspace):
    baseline, soft, stale, local = (
        workspace.evaluate(**ARMS[arm]) for arm in ("baseline", "soft", "stale_keys", "local")
    )
    for result in (soft, stale):
        assert result.samples[0].living == (48,) * 5
        assert result.mean("kv_bytes") == result.totals.reference_kv_bytes
        assert result.mean("flops") > result.totals.reference_prefill_flops
    # Soft scores all tokens at the second stage, too; the width is 16, and 64 + 2 the other dimensions.
    assert soft.mean("flops") - stale.mean("flops") == 2 * (48 - 34) * 16 * 66
    assert local.samples[0].living == baseline.samples[0].living
    assert local.mean("flops") - baseline.mean("flops") == 2 * (48 - 34) * 16 * 66


def test_saliency_pays_for_its_backward(workspace):
    result = workspace.evaluate(**ARMS["saliency"])
    assert result.mean("flops") > 2 * result.totals.reference_prefill_flops


def test_scores_are_counted_where_a_method_has_to_compute_them(workspace):
    """Of 48 and 34 candidates; queries are 64 wide, and keys 32."""
    names = ("recent", "baseline", "learned_distance", "oracle", "attention_last", "attention_window")
    flops = {name: workspace.evaluate(**ARMS[name]).mean("flops") for name in names}
    scores = {name: flops[name] - flops["recent"] for name in names}
    pairs = {1: 48 + 34, 16: 16 * (48 + 34) - 2 * 16 * 15 // 2}
    assert scores["oracle"] == 0
    assert scores["baseline"] == scores["learned_distance"] == 2 * (48 + 34) * 16 * 66
    for name, window in (("attention_last", 1), ("attention_window", 16)):
        assert scores[name] == 2 * (64 * 32 * (48 + 34) + 64 * 64 * 2 * window + 64 * pairs[window])


@pytest.mark.parametrize("measure", ["norm", "abs", "signed"])
def test_the_oracle_knows_what_follows(workspace, measure):
    """Its saliency is of the NLL of the window's own continuation."""
    oracle = ORACLE | {"saliency": {"measure": measure, "loss_tokens": None}}
    result = workspace.evaluate(layers=[1], keep_ratios=[0.5], **oracle)
    model, text = (workspace.folder / name / "manifest.json" for name in ("model", "text"))
    lm, heldout = load_model(model, Compute(), torch.device("cpu")), Heldout(load_tokenizer(model))
    for window, row in zip(heldout.windows(text, 56, 4), result.quality.rows, strict=True):
        scores, _ = window_saliency(lm, window.ids, (1,), 8, measure)
        best = (scores[0, 2:44].topk(24 - 6).indices + 2).tolist()
        assert row["kept"] == [0, 1, *sorted(best), 44, 45, 46, 47]


def test_the_oracle_knows_the_answer_of_a_retrieval_prompt(workspace, monkeypatch):
    read = []

    def noted(lm, ids, layers, loss_tokens, measure):
        read.append((ids, loss_tokens))
        return window_saliency(lm, ids, layers, loss_tokens, measure)

    monkeypatch.setattr(importance, "window_saliency", noted)
    workspace.evaluate("retrieval", **ORACLE)
    model, text = (workspace.folder / name / "manifest.json" for name in ("model", "text"))
    asked = Heldout(load_tokenizer(model)).retrieval(text, workspace.member("retrieval", "x").spec.prompts, 2)
    for (ids, loss_tokens), item in zip(read, asked, strict=True):
        assert torch.equal(ids, torch.cat([item.prompt, item.answer]))
        assert loss_tokens == len(item.answer)


def test_a_scorer_that_was_told_the_distance_is_told_it(workspace):
    """Which takes 16 more weights; with the logarithm of the distance taken off, it keeps other tokens."""
    workspace.run("pruner", "far", distance=True)
    far = {"inputs": {"pruner": "far"}}
    near, told = workspace.evaluate(), workspace.evaluate(**far)
    assert told.totals.training.pruner.distance
    assert told.mean("flops") - near.mean("flops") == 2 * (48 + 34) * 16
    kept = [
        result.quality.rows for result in (near, told, workspace.evaluate(**ARMS["learned_distance"], **far))
    ]
    assert kept[0] != kept[1] != kept[2]


def test_a_measure_that_is_zero_at_the_last_layer_needs_a_stage_before_it(workspace):
    oracle = ORACLE | {"saliency": {"measure": "abs", "loss_tokens": None}}
    both = workspace.evaluate(layers=[1, 4], **oracle)
    assert both.samples[0].living == (48, 34, 34, 34, 24)
    with pytest.raises(
        UserError, match=r"saliency\.measure: 'abs' of the loss 'continuation' is 0"
    ) as caught:
        workspace.evaluate(layers=[4], keep_ratios=[0.7], **oracle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("selection", ["top_k", "top_p", "threshold"])
def test_every_timed_number_of_rows_has_run_untimed_before(workspace, monkeypatch, selection):
    if selection != "top_k":
        workspace.run("calibration", selection=selection)
    runs, timed = [], []
    pruned, unpruned, rounds = PrunedArm.prefill, prefills.prefill, prefills.timed_rounds

    def spied(self, prompt, cache):
        result = pruned(self, prompt, cache)
        runs.append((prompt.number, result.scored, result.kept.shape[0]))
        return result

    def dense(lm, ids, cache):
        runs.append((None, (), ids.shape[0]))
        return unpruned(lm, ids, cache)

    def spied_rounds(*args):
        start = len(runs)
        result = rounds(*args)
        timed.append((start, len(runs)))
        return result

    monkeypatch.setattr(PrunedArm, "prefill", spied)
    monkeypatch.setattr(prefills, "prefill", dense)
    monkeypatch.setattr(prefills, "timed_rounds", spied_rounds)
    member = workspace.member("prefill", f"warm-{selection}", ((0, 4),), selection=selection)
    evaluate(Panel([member]))
    assert len(timed) == 4
    shapes = [tuple(shape) for _, *shape in runs]
    for start, end in timed:
        for run in range(start, end):
            assert shapes[run] in shapes[:start]
        # Two rounds of one arm and two references, or three.
        assert end - start in (6, 9)
    untimed = len(runs) - sum(end - start for start, end in timed)
    # No more than needed: one of each before all others, or an arm's before each prompt's.
    assert untimed == (2 if selection == "top_k" else 5)
    pruned_shapes = {shape for shape in shapes if shape[0]}
    # With top-p a random model may keep the same number of each prompt.
    assert (
        len(pruned_shapes) > 1
        if selection == "threshold"
        else len(pruned_shapes) == 1 or selection == "top_p"
    )


def test_arms_of_other_rounds_are_timed_with_their_own(workspace):
    numbers = {"two": {"repeats": 2}, "four": {"repeats": 4}, "warm": {"repeats": 2, "warmup": 3}}
    members = {name: workspace.member("prefill", f"rounds-{name}", **own) for name, own in numbers.items()}
    evaluate(Panel([*members.values()]))
    for name, member in members.items():
        for sample in workspace.blocks(member, "prefill").samples:
            assert len(sample.pairs) - numbers[name]["repeats"] in (0, 1)


@pytest.mark.parametrize("measure", ["prefill", "sweep"])
def test_timing_without_an_untimed_run_is_refused(workspace, measure):
    with pytest.raises(UserError, match="warmup: Input should be greater than 0"):
        if measure == "sweep":
            workspace.run("sweep", "cold.json", warmup=0)
        else:
            workspace.evaluate("prefill", warmup=0)


@pytest.mark.parametrize("selection", ["top_p", "threshold"])
def test_calibrated_rules(workspace, selection):
    workspace.run("calibration", selection=selection)
    result = workspace.evaluate(selection=selection)
    assert result.totals.calibration.counts == (34, 24)
    assert result.totals.calibration.mean_kept == pytest.approx((34, 24), abs=1)
    means = [sum(rows) / 4 for rows in zip(*(sample.living for sample in result.samples), strict=True)]
    assert means[0] == 48
    assert all(later <= earlier for earlier, later in pairwise(means))
    assert result.mean("kv_bytes") == pytest.approx(sum(means) / 240 * result.totals.reference_kv_bytes)


def test_shares_of_the_prompt_are_protected(workspace):
    """Of 48 tokens ceil(2.4) + 12 are protected, also in calibration and in matched counts."""
    preserve = {"head": 0.05, "tail": 0.25}
    result = workspace.evaluate(preserve=preserve, keep_ratios=[0.5, 0.01])
    assert {sample.living for sample in result.samples} == {(48, 24, 24, 15, 15)}
    match = {"quantity": "count", "layers": [1, 3], "keep_ratios": [0.5, 0.01], "preserve": preserve}
    result = workspace.evaluate(preserve={"head": 0, "tail": 0}, match=match)
    assert {sample.living for sample in result.samples} == {(48, 24, 24, 15, 15)}
    calibrated = {"preserve": preserve, "keep_ratios": [0.5, 0.01]}
    workspace.run("calibration", "shares", **calibrated)
    result = workspace.evaluate(selection="top_p", inputs={"calibration": "shares"}, **calibrated)
    assert result.totals.calibration.counts == (24, 15)
    with pytest.raises(UserError, match=r"preserve: keeps all 48 tokens of a prompt"):
        workspace.evaluate(preserve={"head": 0.5, "tail": 0.501})


def test_matched_count(workspace):
    match = {
        "quantity": "count",
        "layers": [1, 3],
        "keep_ratios": [0.7, 0.01],
        "preserve": {"head": 2, "tail": 4},
    }
    result = workspace.evaluate(preserve={"head": 0, "tail": 0}, keep_ratios=[0.5, 0.5], match=match)
    assert result.samples[0].living == (48, 34, 34, 6, 6)
    assert result.totals.keep_ratios == (0.7, 0.01)


def test_matched_flops(workspace):
    match = {
        "quantity": "flops",
        "layers": [1, 3],
        "keep_ratios": [0.7, 0.7],
        "preserve": {"head": 2, "tail": 4},
    }
    result = workspace.evaluate(layers=[1], keep_ratios=[0.7], match=match)
    baseline = workspace.evaluate()
    assert len(result.totals.keep_ratios) == 1
    assert result.mean("flops") == pytest.approx(baseline.mean("flops"), rel=0.02)
    with pytest.raises(UserError, match="no keep ratio at layers"):
        workspace.evaluate(
            layers=[3],
            keep_ratios=[0.7],
            match=match | {"keep_ratios": [0.2, 0.2], "preserve": {"head": 0, "tail": 0}},
        )
