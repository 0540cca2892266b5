"""The evaluate job: records of every kind of arm."""

import json
from itertools import groupby, pairwise

import pytest
import torch

from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.sdtp.evaluation import windows as evaluation
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.evaluation.heldout import require_positions
from ablations.sdtp.scores.table import read_saliency
from ablations.specs.sdtp.reference import Windows
from tests.sdtp.workspace import COMPUTE

SALIENCY = {"measure": "norm", "loss_tokens": 8}
ARMS = {
    "baseline": {},
    "saliency": {"importance": "saliency", "saliency": SALIENCY},
    "prior": {"importance": "prior"},
    "random": {"importance": "random"},
    "recent": {"importance": "recent"},
    "hidden_norm": {"importance": "hidden_norm"},
    "packed": {"positions": "packed"},
    "soft": {"mask": "soft"},
    "local": {"propagation": "local"},
    "stale_keys": {"propagation": "stale_keys"},
}


def quality(record):
    samples = [(sample.nll, sample.agreement, sample.kl) for sample in record.samples]
    return samples, record.totals.retrieval


def test_chain_ends_in_a_record(workspace):
    record = workspace.evaluate()
    assert record.outcome.status == "ok"
    assert record.label == "label"
    assert [len(sample.pairs) for sample in record.samples] == [2, 2, 0, 0]
    assert len({sample.document for sample in record.samples}) == 4
    for sample in record.samples:
        assert sample.living == (48, 34, 34, 24, 24)
        assert 0 < abs(sample.nll - sample.reference_nll) < 1
        assert sample.kl > 0
        assert sample.agreement < 1
    totals = record.totals
    assert totals.keep_ratios == (0.7, 0.7)
    assert totals.kv_bytes / totals.reference_kv_bytes == pytest.approx(164 / 240)
    assert totals.prefill_flops < totals.reference_prefill_flops
    assert totals.peak_memory_bytes > 10**8
    assert len(totals.training.ranking) == 2
    assert [probe.depth for probe in totals.retrieval] == [0.2, 0.8]
    side = workspace.folder / record.side.file
    assert sha256_file(side) == record.side.sha256
    rows = [json.loads(line) for line in side.read_text().splitlines()]
    assert [row["document"] for row in rows] == [sample.document for sample in record.samples]
    for row in rows:
        assert len(row["kept"]) == 24
        assert row["kept"] == sorted(row["kept"])
        assert {0, 1, 44, 45, 46, 47} <= set(row["kept"])


def test_ratio_one_costs_no_quality(workspace):
    record = workspace.evaluate(keep_ratios=[1.0, 1.0])
    for sample in record.samples:
        assert sample.nll == pytest.approx(sample.reference_nll, abs=1e-5)
        assert sample.agreement == 1
        assert sample.kl == pytest.approx(0, abs=1e-6)
    for probe in record.totals.retrieval:
        assert probe.hit == probe.reference_hit
        assert probe.nll == pytest.approx(probe.reference_nll, abs=1e-5)


TIMED = {"documents": 1, "repeats": 1}


@pytest.mark.parametrize("arm", ARMS)
def test_same_seed_same_quality_to_the_bit(workspace, arm):
    first, second = (quality(workspace.evaluate(timing=timing, **ARMS[arm])) for timing in (None, TIMED))
    assert first == second


def test_bfloat16(workspace):
    compute = COMPUTE | {"dtype": "bfloat16"}
    with pytest.raises(UserError, match=r"computed in torch\.float32, but compute\.dtype is bfloat16"):
        workspace.run("evaluate", "never.json", compute=compute)
    workspace.run("reference", "reference_bfloat16", compute=compute)
    inputs = {"reference": "reference_bfloat16"}
    first, second = (workspace.evaluate(inputs=inputs, compute=compute) for _ in range(2))
    assert first.outcome.status == "ok"
    assert quality(first) == quality(second)
    exact = workspace.evaluate(inputs=inputs, compute=compute, keep_ratios=[1.0, 1.0])
    # The same rows run through the same kernels, so only pruning distinguishes the arms.
    assert {(sample.kl, sample.agreement) for sample in exact.samples} == {(0.0, 1.0)}


def test_arms_differ(workspace):
    nlls = [quality(workspace.evaluate(timing=None, **change))[0][0][0] for change in ARMS.values()]
    assert len(set(nlls)) == len(ARMS)


def test_seed_moves_random_importance_alone(workspace):
    def run(**change):
        return quality(workspace.evaluate(timing=None, **change))

    assert run(importance="random", seed=1) != run(importance="random", seed=2)
    assert run(importance="learned", seed=1) == run(importance="learned", seed=2)


def test_random_importance_needs_no_pruner(workspace):
    record = workspace.evaluate(importance="random", inputs={"pruner": "nowhere"}, timing=None)
    assert record.outcome.status == "ok"
    assert record.totals.training is None


def test_prior_of_fewer_stages_uses_their_own_curves(workspace):
    table = workspace.folder / "saliency" / "manifest.json"
    both, second = read_saliency(table, (1, 3)), read_saliency(table, (3,))
    assert torch.equal(both.saliency[:, 1:], second.saliency)
    record = workspace.evaluate(importance="prior", layers=[3], keep_ratios=[0.7], timing=None)
    assert record.samples[0].living == (48, 48, 48, 34, 34)


def test_over_long_prompt(lm):
    spec = Windows(documents=1, prompt_tokens=250, continuation_tokens=8)
    with pytest.raises(UserError, match=r"prompt_tokens: .* 258 tokens exceed .* 256 .* at most 248"):
        require_positions(lm, spec)


def test_stale_positions_crash_in_the_models_own_rotary_application(workspace):
    record = workspace.evaluate(positions="stale")
    assert record.outcome.status == "crashed"
    assert record.outcome.exception == "RuntimeError"
    assert record.outcome.place == "apply_rotary_pos_emb in transformers.models.llama.modeling_llama"
    assert record.samples == ()
    assert record.totals is None
    assert record.side is None
    assert workspace.evaluate(positions="original").outcome.status == "ok"


def test_dropped_tokens_that_stay_are_counted(workspace):
    baseline, soft, stale, local = (
        workspace.evaluate(timing=None, **ARMS[arm]) for arm in ("baseline", "soft", "stale_keys", "local")
    )
    for record in (soft, stale):
        assert record.samples[0].living == (48,) * 5
        assert record.totals.kv_bytes == record.totals.reference_kv_bytes
        assert record.totals.prefill_flops > record.totals.reference_prefill_flops
    # Soft scores all tokens at the second stage, too; the width is 16, and 64 + 2 the other dimensions.
    assert soft.totals.prefill_flops - stale.totals.prefill_flops == 2 * (48 - 34) * 16 * 66
    assert local.samples[0].living == baseline.samples[0].living
    assert local.totals.prefill_flops - baseline.totals.prefill_flops == 2 * (48 - 34) * 16 * 66


def test_saliency_pays_for_its_backward(workspace):
    totals = workspace.evaluate(timing=None, **ARMS["saliency"]).totals
    assert totals.prefill_flops > 2 * totals.reference_prefill_flops


@pytest.mark.parametrize("selection", ["top_k", "top_p", "threshold"])
def test_every_timed_number_of_rows_has_run_untimed_before(workspace, monkeypatch, selection):
    change = {"selection": selection, "timing": {"documents": 4, "repeats": 2}}
    if selection != "top_k":
        workspace.run("calibration", selection=selection)
    runs = []

    def spy(prefill):
        def spied(self, ids, *rest):
            result = prefill(self, ids, *rest)
            runs.append((ids.tolist(), result.scored, result.kept.shape[0]))
            return result

        return spied

    monkeypatch.setattr(PrunedArm, "prefill", spy(PrunedArm.prefill))
    monkeypatch.setattr(evaluation.Evaluation, "dense_prefill", spy(evaluation.Evaluation.dense_prefill))
    record = workspace.evaluate("warm.json", **change)
    assert [len(sample.pairs) for sample in record.samples] == [2] * 4
    # Passkeys run afterwards and are not timed.
    runs = [run for run in runs if len(run[0]) == 48]
    shapes = [shape for _, *shape in runs]
    prompts = [list(group) for _, group in groupby(range(len(runs)), key=lambda run: runs[run][0])]
    assert len(prompts) == 4
    for prompt in prompts:
        # The last four are two pairs.
        for run in prompt[-4:]:
            assert shapes[run] in shapes[:run]
    pruned = {tuple(shape) for shape in shapes if shape[0]}
    # With top-p a random model may keep the same number of each prompt.
    assert len(pruned) > 1 if selection == "threshold" else len(pruned) == 1 or selection == "top_p"
    # No more than needed: one untimed pair before all others, or one before each prompt's.
    assert [len(prompt) for prompt in prompts] == ([6, 4, 4, 4] if selection == "top_k" else [6] * 4)


@pytest.mark.parametrize("job", ["evaluate", "sweep"])
def test_timing_without_an_untimed_run_is_refused(workspace, job):
    change = {"warmup": 0} if job == "sweep" else {"timing": {"documents": 1, "repeats": 1, "warmup": 0}}
    with pytest.raises(UserError, match="warmup: Input should be greater than 0"):
        workspace.run(job, "cold.json", **change)


@pytest.mark.parametrize("selection", ["top_p", "threshold"])
def test_calibrated_rules(workspace, selection):
    workspace.run("calibration", selection=selection)
    record = workspace.evaluate(selection=selection, timing=None)
    assert record.totals.calibration.counts == (34, 24)
    assert record.totals.calibration.mean_kept == pytest.approx((34, 24), abs=1)
    means = [sum(rows) / 4 for rows in zip(*(sample.living for sample in record.samples), strict=True)]
    assert means[0] == 48
    assert all(later <= earlier for earlier, later in pairwise(means))
    assert record.totals.kv_bytes == pytest.approx(sum(means) / 240 * record.totals.reference_kv_bytes)


def test_shares_of_the_prompt_are_protected(workspace):
    """Of 48 tokens ceil(2.4) + 12 are protected, also in calibration and in matched counts."""
    preserve = {"head": 0.05, "tail": 0.25}
    record = workspace.evaluate(preserve=preserve, keep_ratios=[0.5, 0.01], timing=None)
    assert {sample.living for sample in record.samples} == {(48, 24, 24, 15, 15)}
    match = {"quantity": "count", "layers": [1, 3], "keep_ratios": [0.5, 0.01], "preserve": preserve}
    record = workspace.evaluate(preserve={"head": 0, "tail": 0}, match=match, timing=None)
    assert {sample.living for sample in record.samples} == {(48, 24, 24, 15, 15)}
    calibrated = {"preserve": preserve, "keep_ratios": [0.5, 0.01]}
    workspace.run("calibration", "shares", **calibrated)
    record = workspace.evaluate(
        selection="top_p", inputs={"calibration": "shares"}, timing=None, **calibrated
    )
    assert record.totals.calibration.counts == (24, 15)
    with pytest.raises(UserError, match=r"spec\.preserve: keeps all 48 tokens of a prompt"):
        workspace.evaluate(preserve={"head": 0.5, "tail": 0.501}, timing=None)


def test_matched_count(workspace):
    match = {
        "quantity": "count",
        "layers": [1, 3],
        "keep_ratios": [0.7, 0.01],
        "preserve": {"head": 2, "tail": 4},
    }
    record = workspace.evaluate(
        preserve={"head": 0, "tail": 0}, keep_ratios=[0.5, 0.5], match=match, timing=None
    )
    assert record.samples[0].living == (48, 34, 34, 6, 6)
    assert record.totals.keep_ratios == (0.7, 0.01)


def test_matched_flops(workspace):
    match = {
        "quantity": "flops",
        "layers": [1, 3],
        "keep_ratios": [0.7, 0.7],
        "preserve": {"head": 2, "tail": 4},
    }
    record = workspace.evaluate(layers=[1], keep_ratios=[0.7], match=match, timing=None)
    baseline = workspace.evaluate(timing=None)
    assert len(record.totals.keep_ratios) == 1
    assert record.totals.prefill_flops == pytest.approx(baseline.totals.prefill_flops, rel=0.02)
    with pytest.raises(UserError, match="no keep ratio at layers"):
        workspace.run(
            "evaluate",
            "never.json",
            layers=[3],
            keep_ratios=[0.7],
            match=match | {"keep_ratios": [0.2, 0.2], "preserve": {"head": 0, "tail": 0}},
        )


@pytest.mark.parametrize("error", [RuntimeError("shapes differ\nmore"), IndexError("x"), ValueError("x")])
def test_crash_of_the_arm_is_a_record(workspace, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(evaluation, "continuation_states", broken)
    record = workspace.evaluate("crashed.json")
    assert record.outcome.status == "crashed"
    assert record.outcome.exception == type(error).__name__
    assert record.outcome.message == str(error).splitlines()[0]
    assert record.outcome.place.endswith(f"broken in {__name__}")


@pytest.mark.parametrize(
    "error", [UserError("x"), torch.OutOfMemoryError("x"), MemoryError("x"), KeyError("x")]
)
def test_other_errors_are_no_findings(workspace, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(evaluation, "continuation_states", broken)
    with pytest.raises(type(error)):
        workspace.run("evaluate", "never.json")
    assert not (workspace.folder / "never.json").exists()


def test_nan_is_an_error_of_numerics(workspace, monkeypatch):
    def nan(lm, prefilled, cache, ids):
        return torch.full((ids.shape[0], 64), torch.nan)

    monkeypatch.setattr(evaluation, "continuation_states", nan)
    with pytest.raises(UserError, match=r"NaN or infinity in the NLL of document .*, computed in float32"):
        workspace.run("evaluate", "never.json")
