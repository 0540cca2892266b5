import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.panel import Panel
from ablations.dynatree import calibrate_costs, calibrate_drafter, calibrate_target, fit_ngram
from ablations.dynatree.acceptance import acceptance_curve
from ablations.dynatree.counting import repeated_share
from ablations.dynatree.decode import decode
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.dynatree.exactness import FLOAT32_MARGIN
from ablations.dynatree.metering import bookkeeping_line, line
from ablations.lm import timing
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec
from ablations.specs.dynatree.calibrate_target import TargetCostSpec
from ablations.specs.dynatree.costs import read_costs
from ablations.specs.dynatree.fit_ngram import NgramSpec
from tests.dynatree.noisy_models import tiny_model
from tests.dynatree.workspace import (
    ACCEPTANCE_SPEC,
    CALIBRATED,
    CODE,
    COST_AWARE,
    COST_SPEC,
    DYNAMIC,
    HISTORY,
    LINEAR,
    LOOKUP,
    NEURAL,
    NEW_TOKENS,
    NGRAM,
    PROMPTS,
    PRUNED,
    TARGET_SPEC,
    TREE,
    WHOLE,
    blocks,
    decode_spec,
    decoded,
    make_inputs,
    run_job,
    run_member,
    series,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def inputs(folder) -> dict[str, Path]:
    return make_inputs(folder)


ARMS = {
    "ar": (None, None, None),
    "linear": (NGRAM, LINEAR, WHOLE),
    "tree": (NGRAM, TREE, WHOLE),
    "pruned": (NGRAM, TREE, PRUNED),
    "neural": (NEURAL, TREE, WHOLE),
    "lookup": (LOOKUP, TREE, PRUNED),
    "dynamic": (NGRAM, TREE, PRUNED, DYNAMIC),
    "history": (NGRAM, TREE, PRUNED, HISTORY),
    "cost aware": (NGRAM, TREE, CALIBRATED, COST_AWARE),
}


def arm_spec(arm: str) -> dict:
    drafter, shape, pruning, *changes = ARMS[arm]
    return decode_spec(drafter, shape, pruning, **(changes[0] if changes else {}))


@pytest.mark.parametrize("arm", ARMS)
def test_a_record_says_what_was_measured(arm, folder, inputs):
    series = decoded(folder, arm, arm_spec(arm), inputs)
    (block,) = series.blocks
    assert block.label == arm
    assert block.module == "ablations.dynatree.decode"
    assert block.outcome.status == "ok"
    assert block.totals.tie_margin == FLOAT32_MARGIN
    assert block.environment.seconds > 0
    for sample, row in zip(block.samples, series.rows, strict=True):
        assert (sample.document, sample.kind, sample.prompt_tokens) == (row["document"], "code", 30)
        assert sample.matched
        assert (sample.ties, sample.departures) == (0, ())
        assert row["tokens"] == row["greedy"]
        assert len(row["tokens"]) == sample.new_tokens <= NEW_TOKENS
        assert sample.stopped or sample.new_tokens == NEW_TOKENS
        assert sum(sample.accepted_per_round) == sample.accepted <= sample.drafted
        assert len(sample.accepted_per_round) == sample.target_forwards
        assert sum(sample.drafted_per_round) == sample.drafted
        assert sum(sample.accepted_per_depth) == sample.accepted
        assert len(sample.tested_per_depth) == len(sample.accepted_per_depth)
        for tested, accepted in zip(sample.tested_per_depth, sample.accepted_per_depth, strict=True):
            assert 0 <= accepted <= tested <= sample.target_forwards
        # A level below the first is tested only if the level above was accepted.
        for tested, above in zip(sample.tested_per_depth[1:], sample.accepted_per_depth, strict=False):
            assert tested <= above
        rounds = sample.draft_seconds + sample.verify_seconds + sample.bookkeeping_seconds
        last = sample.pairs[-1]
        assert rounds <= last.arm - last.arm_first
        cut = sample.accepted + sample.target_forwards + 1 - sample.new_tokens
        assert cut == 0 or (cut == 1 and sample.stopped)
        # The third round is run where the first two differ.
        assert len(sample.pairs) in (2, 3)
        for pair in sample.pairs:
            assert pair.arm_first < pair.arm
            assert pair.reference_first < pair.reference
            assert pair.again > 0
    drafts = [sample.draft_forwards for sample in block.samples]
    assert all(drafts) if arm != "ar" else not any(drafts)


def test_costs_are_what_a_cost_aware_tree_needs(inputs):
    costs = read_costs(inputs["costs"])
    target = costs.target
    assert target.rows == tuple(range(1, 14))
    assert target.prefixes == (8, 20)
    assert all(short <= long for short, long in zip(*target.verify, strict=True))
    assert list(target.prefill) == sorted(target.prefill)
    assert list(costs.stated) == sorted(set(costs.stated))
    assert (costs.stated[0], costs.stated[-1], costs.accepted[0]) == (0, 1, 0)
    assert list(costs.accepted) == sorted(costs.accepted)
    assert 0 <= costs.child <= 1
    assert costs.levels.keys() == {"root", "first", "deep"}
    assert costs.commit.at(1) > 0
    assert costs.bookkeeping.keys() == {"fixed", "dynamic", "cost_aware"}
    assert costs.rate >= 1 / float(target.verify_seconds(1, target.typical_prefix))


def test_a_forward_over_more_rows_may_take_less_and_after_a_longer_prefix_not(monkeypatch):
    """As a processor said, in milliseconds: one row 54, two 62, three 51; the first two timed take longer."""
    seconds = {(8, 1): 54, (8, 2): 63, (8, 3): 51, (20, 1): 55, (20, 2): 61, (20, 3): 52}
    target = tiny_model("llama")
    clock = calibrate_target.Clock(target, torch.arange(30), (8, 20), 3)
    passed = []

    def forward(self, rows, prefix):
        passed.append((prefix, rows))
        return seconds[prefix, rows] + 500 * (6 < len(passed) <= 8)

    monkeypatch.setattr(calibrate_target.Clock, "_forward", forward)
    assert clock.verify([1, 2, 3], (8, 20), 4) == [[54, 62, 51], [55, 62, 52]]
    assert [passed.count((20, rows)) for rows in (1, 2, 3)] == [24, 17, 14]


@pytest.mark.parametrize(
    ("job", "spec", "message"),
    [
        ("target", {"prefixes": [100]}, r"prefixes: 100 tokens, but the prompts hold 60; lower it"),
        ("target", {"prefixes": [20, 8]}, r"prefixes: numbers must rise"),
        ("costs", {"max_nodes": 3}, r"spec\.max_nodes: 3 nodes cannot hold a path of depth 4"),
        ("acceptance", {"max_nodes": 3}, r"spec\.max_nodes: 3 nodes cannot hold a path of depth 4"),
        ("acceptance", {"drafter": NEURAL | {"kind": "distilled"}}, r"distilled"),
    ],
)
def test_costs_that_cannot_be_measured_are_refused(job, spec, message, folder, inputs):
    jobs = {
        "target": (run_job, TargetCostSpec, calibrate_target.run, TARGET_SPEC),
        "acceptance": (run_member, AcceptanceSpec, calibrate_drafter.calibrate, ACCEPTANCE_SPEC),
        "costs": (run_member, CostSpec, calibrate_costs.measure, COST_SPEC),
    }
    run, contract, work, usual = jobs[job]
    with pytest.raises(UserError, match=message):
        run(folder, "bad-costs", contract, work, usual | spec, inputs)


def test_lower_precision_records_its_ties(folder, inputs):
    compute = {"dtype": "bfloat16", "threads": 1}
    spec = decode_spec(NGRAM, TREE, WHOLE, compute=compute, new_tokens=40)
    (record,) = decoded(folder, "bfloat16", spec, inputs, count=12).blocks
    departures = [departure for sample in record.samples for departure in sample.departures]
    assert (record.totals.tie_margin > 0) == bool(departures)
    for sample in record.samples:
        assert sample.matched == (not sample.departures)
        assert sample.ties == len(sample.departures)
        for departure in sample.departures:
            assert departure.position < sample.new_tokens
            assert departure.gap <= record.totals.tie_margin


def edited_draft(inputs: dict[str, Path], folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of the draft with one file edited, its manifest in step; returns the manifest."""
    manifest = folder / f"edited-{name}" / "manifest.json"
    shutil.copytree(inputs["draft"].parent, manifest.parent)
    file = manifest.parent / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    described = Manifest.model_validate_json(manifest.read_bytes())
    files = described.files | {name: sha256_file(file)}
    manifest.write_text(described.model_copy(update={"files": files}).model_dump_json())
    return manifest


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("tokenizer.json", '"a": ', '"aa": ', "the draft's vocabulary is not the target's"),
        ("config.json", "4096", "40", "the draft has 40 positions, prompts and new tokens need 42"),
    ],
)
def test_a_draft_that_does_not_fit_the_target_is_refused(file, old, new, message, folder, inputs):
    changed = inputs | {"draft": edited_draft(inputs, folder, file, old, new)}
    with pytest.raises(UserError, match=rf"edited-{file}/manifest\.json: {message}"):
        decoded(folder, "other", decode_spec(*ARMS["neural"]), changed)


def test_counts_of_a_larger_vocabulary_are_refused(folder, inputs):
    with pytest.raises(UserError, match="do not fit a target of 100 tokens"):
        NgramCounts.load(inputs["ngram"], 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new_tokens": 4080}, "30 tokens and 4080 new ones exceed the target's 4096 positions"),
        ({"shape": TREE | {"method": "linear"}}, r"shape\.branching: a linear draft is one path"),
        ({"shape": None}, "'shape' and 'pruning' are needed with a drafter"),
        ({"pruning": {"tau": None, "max_nodes": 3}}, r"pruning\.max_nodes: 3 nodes cannot hold a path"),
        ({"shape": LINEAR} | DYNAMIC, r"adaptation: a linear draft has a fixed length"),
        ({"shape": TREE | {"depth": 9}} | DYNAMIC, r"max_depth: 8 is less than the base depth 9"),
        (COST_AWARE, "no input named 'costs'"),
    ],
)
def test_bad_input_is_one_line(changes, message, folder, inputs):
    with pytest.raises(UserError, match=message):
        spec = decode_spec(NGRAM, TREE, PRUNED) | changes
        known = {name: path for name, path in inputs.items() if name != "costs"}
        decoded(folder, "bad", spec, known)
    assert not (folder / "bad.blocks").exists()


def test_a_text_without_training_documents_is_refused(folder, inputs):
    counted = {"model": inputs["model"], "text": inputs["prompts"]}
    with pytest.raises(UserError, match="no training documents"):
        run_job(folder, "empty", NgramSpec, fit_ngram.run, {"order": 3, "texts": ["text"]}, counted)


def test_acceptance_curve_follows_what_was_accepted():
    generator = np.random.default_rng(0)
    stated = generator.uniform(0, 1, 4000)
    accepted = generator.uniform(0, 1, 4000) < stated**2
    probabilities, shares = acceptance_curve(stated, accepted)
    assert probabilities == sorted(set(probabilities))
    assert shares == sorted(shares)
    for probability in (0.2, 0.5, 0.8):
        assert np.interp(probability, probabilities, shares) == pytest.approx(probability**2, abs=0.08)


def test_lines_are_fitted_and_never_negative():
    found = line([(1, 3.0), (2, 5.0), (4, 9.0)])
    assert (found.base, found.unit) == pytest.approx((1.0, 2.0))
    falling = line([(1, 5.0), (4, 4.0), (8, 3.0)])
    assert falling.base > 0
    assert falling.unit == 0
    assert line([]).at(7) == 0.0
    bookkeeping = bookkeeping_line([(2, 10, 2 * 0.3 + 10 * 0.01), (5, 12, 5 * 0.3 + 12 * 0.01)])
    assert (bookkeeping.base, bookkeeping.unit) == pytest.approx((0.3, 0.01))


def test_repeated_share_counts_later_occurrences():
    assert repeated_share([1, 2, 3], 4) == 0.0
    assert repeated_share([1, 2, 3, 4, 5, 6], 4) == 0.0
    assert repeated_share([7] * 8, 4) == pytest.approx(4 / 5)


@pytest.mark.parametrize("new_tokens", [1, 2, 6, 7])
@pytest.mark.parametrize("arm", ["ar", "tree"])
def test_few_new_tokens_are_decoded(arm, new_tokens, folder, inputs):
    spec = arm_spec(arm) | {"new_tokens": new_tokens}
    samples = decoded(folder, f"{arm}-{new_tokens}", spec, inputs).samples
    assert [sample.new_tokens for sample in samples] == [new_tokens] * 2


@pytest.mark.parametrize("discarded", [0, 1])
@pytest.mark.parametrize("arm", ["tree", "neural"])
def test_no_length_of_a_prompt_is_new_to_what_is_timed(arm, discarded, folder, inputs, monkeypatch):
    """Target and draft have run untimed on every prompt's length."""
    lengths = (30, 17)
    stopwatch, embed = timing.stopwatch, LayeredLM.embed
    recorded = False
    known, fresh, forwards = set(), set(), 0

    def timed(device, work):
        nonlocal recorded
        recorded = True
        try:
            return stopwatch(device, work)
        finally:
            recorded = False

    def watched(lm, ids):
        nonlocal forwards
        forward = (lm.num_layers, ids.shape[1])
        if recorded:
            forwards += 1
            fresh.update({forward} - known)
        else:
            known.add(forward)
        return embed(lm, ids)

    # Only the rounds' stopwatch: decoding has imported the function under its own name.
    monkeypatch.setattr(timing, "stopwatch", timed)
    monkeypatch.setattr(LayeredLM, "embed", watched)
    members = [
        series(
            folder,
            f"rows-{arm}-{discarded}-{tokens}",
            arm_spec(arm) | {"prompts": CODE | {"tokens": tokens}, "discarded": discarded},
            inputs,
        )
        for tokens in lengths
    ]
    decode(Panel(members))
    assert [len(blocks(member).samples) for member in members] == [PROMPTS] * 2
    assert forwards > 2 * NEW_TOKENS
    # A discarded round runs what is timed; else a later prompt may verify a number of rows that is new.
    assert not fresh if discarded else all(rows < min(lengths) - 1 for _, rows in fresh)
