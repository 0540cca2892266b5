"""The summary says what the records say, and leaves nothing out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.record import read_record, write_record
from ablations.evidence.inputs import PaperInput
from ablations.evidence.join import DecodeRecord
from ablations.paper.collect import summarise
from tests.paper.design import SMALL, WHOLE
from tests.paper.synthetic_decoding import DYNATREE, decode_record
from tests.paper.synthetic_sdtp import sdtp_record


def collected(plan):
    return summarise(PaperInput.model_validate_json(plan.read_bytes()))


def test_every_experiment_is_a_row_with_its_record(study):
    plan = json.loads(study.plan.read_text())
    assert {row.id for row in study.summary.rows} == {item["id"] for item in plan["experiments"]}
    row = study.summary.row("A2")
    assert [file.sha256 for file in row.files] == [
        sha256_file(study.plan.parent / "record" / f"{name}.json") for name in ("A2", "A2-1", "A2-2")
    ]


def test_effects_are_differences_of_paired_differences(study):
    records = {
        name: json.loads((study.plan.parent / "record" / f"{name}.json").read_text())
        for name in ("A6", "baseline")
    }
    row = study.summary.row("A6")
    for found, value in (
        (study.summary.comparison("A6", "baseline", "text").estimate, lambda sample: sample["kl"]),
        (row.nll_effect, lambda sample: sample["nll"] - sample["reference_nll"]),
    ):
        own, base = (np.array([*map(value, record["samples"])]) for record in records.values())
        if found is not row.nll_effect:
            assert found.value == pytest.approx((own - base).mean())
        assert found.n == 40
        assert 0.3 < found.low < found.value < found.high
    assert [(part.kind, part.outcome) for part in row.parts] == [("confirmatory", "as_expected")] * 2


def test_timed_documents_alone_enter_speed(study):
    assert study.summary.comparison("A7", "baseline", "speed").estimate.n == 30
    assert study.summary.comparison("A7", "baseline", "text").estimate.n == 40


def test_what_differs_in_scores_alone_is_counted(study):
    summary = study.summary
    row = summary.row("A5")
    assert summary.comparison("A5", "baseline", "speed") is None
    flops = [summary.row(name).sdtp.flops for name in ("baseline", "A5")]
    assert summary.counted_speed(row) == pytest.approx(math.log(flops[0] / flops[1]))
    assert summary.counted_speed(summary.row("A7")) is None
    (part,) = (part for part in row.parts if part.aspect == "speed")
    assert (part.kind, part.outcome, part.low) == ("counted", "as_expected", None)


def test_retrieval_is_compared_by_the_document_of_the_prompt(study):
    records = [
        json.loads((study.plan.parent / "record" / f"{name}.json").read_text()) for name in ("A7", "baseline")
    ]
    own, base = (
        {probe["document"]: probe["nll"] for probe in record["totals"]["retrieval"]} for record in records
    )
    effect = study.summary.comparison("A7", "baseline", "retrieval").estimate
    assert effect.value == pytest.approx(np.mean([own[name] - base[name] for name in own]))
    assert effect.n == 40


def test_facts_found_are_counted_in_all_and_by_kind(study):
    result = study.summary.row("A2").sdtp
    total, *kinds = result.retrieval
    assert (total.kind, total.prompts) == (None, 120)
    assert [item.kind for item in kinds] == ["passkey", "pairs", "question_first", "definition"]
    assert {item.prompts for item in kinds} == {30}
    assert sum(item.hits for item in kinds) == total.hits
    assert 0 < total.hits < total.reference_hits
    assert result.answer_nll.value > result.reference_answer_nll


def test_several_trainings_widen_the_interval_beside_that_for_these_trainings(study):
    found = study.summary.comparison("A5", "baseline", "text")
    low, high = found.these_trainings
    assert found.seeds == 3
    assert found.estimate.low < low < found.estimate.value < high < found.estimate.high
    assert study.summary.comparison("A7", "baseline", "text").these_trainings is None


def test_looks_are_of_the_first_documents(render):
    looks = (
        {"documents": 20, "retrieval": 20, "alpha": 0.01},
        {"documents": 40, "retrieval": 40, "alpha": 0.02},
        {"documents": 80, "retrieval": 80, "alpha": 0.02},
    )
    study = render(settings={"looks": looks})
    parts = {part.aspect: part for part in study.summary.row("A6").parts}
    assert parts["text"].look == 1
    assert parts["text"].effect != study.summary.comparison("A6", "baseline", "text").estimate.value
    assert max(part.look for part in parts.values() if part.look) <= 2


def test_autoregressive_decoding_is_one_by_definition(study):
    result = study.summary.row("F1").decoding
    assert result.autoregressive
    assert (result.speedup.value, result.speedup.low) == (0.0, None)
    assert math.exp(result.library_speedup.value) == pytest.approx(1.25, rel=0.05)


def test_a_slow_arm_is_compared_by_its_own_prompts(study, render):
    """All prompts are priced for both; those that both were timed on correct the prices."""
    effect = study.summary.comparison("F3", "F2", "speed")
    assert (effect.estimate.n, effect.unpaired) == (60, 0)
    differences = {"measured": {}, "priced": {}}
    for name, sign in (("F3", 1), ("F2", -1)):
        record = json.loads(Path(study.summary.row(name).files[0].path).read_text())
        for kind, found in differences.items():
            for row in record["samples"] if kind == "measured" else record["totals"]["replays"]:
                if kind == "measured":
                    value = np.median([math.log(pair["reference"] / pair["arm"]) for pair in row["pairs"]])
                else:
                    reference = row["reference_first"] + row["reference_rounds"]
                    value = math.log(reference / (row["first"] + row["rounds"]))
                found.setdefault((row["kind"], row["document"]), []).append(sign * value)
    measured, priced = (
        {key: sum(values) for key, values in found.items() if len(values) == 2}
        for found in differences.values()
    )
    assert (len(measured), len(priced)) == (6, 60)
    # Six are too few for a slope, and kinds have as many prompts each.
    off = np.mean([value - priced[key] for key, value in measured.items()])
    assert effect.estimate.value == pytest.approx(np.mean([*priced.values()]) + off)
    timed = render(replayed=False).summary.comparison("F3", "F2", "speed")
    assert (timed.estimate.n, timed.unpaired) == (6, 54)


def test_counts_are_those_of_replays_and_times_those_of_timed_prompts(study, render):
    result, protocol = study.summary.row("F4").decoding, study.summary.decoding
    record = json.loads(Path(study.summary.row("F4").files[0].path).read_text())
    accepted, forwards = (
        sum(row[name] for row in record["totals"]["replays"]) for name in ("accepted", "target_forwards")
    )
    assert result.tokens_per_forward == 1 + accepted / forwards
    assert (result.prompts, result.replayed, result.unlike) == (15, 60, 1)
    assert [(kind.kind, kind.prompts, kind.replayed) for kind in result.kinds] == [
        (kind, 5, 20) for kind in ("code", "docs", "chat")
    ]
    assert [(kind.count, kind.timed) for kind in protocol.prompts] == [(20, 5)] * 3
    assert protocol.replayed
    seconds = [np.median([pair["arm"] for pair in row["pairs"]]) for row in record["samples"]]
    assert result.throughput == pytest.approx(15 * 64 / sum(seconds))
    timed = render(replayed=False).summary
    assert (timed.row("F4").decoding.replayed, timed.row("F4").decoding.measured_speedup) == (None, None)
    assert [(kind.count, kind.timed) for kind in timed.decoding.prompts] == [(20, 20)] * 3
    assert not timed.decoding.replayed


def test_estimates_of_speed_lie_nearer_than_the_timed_prompts_alone(study):
    """Their intervals are narrower, as prices are close to times in the synthetic study."""
    for row in study.summary.rows:
        if row.decoding is not None and row.decoding.measured_speedup is not None:
            found, timed = row.decoding.speedup, row.decoding.measured_speedup
            assert found.high - found.low < timed.high - timed.low
            assert abs(row.decoding.price_error.value) < 0.1
            assert row.decoding.rounds_speedup.n == 60


def test_a_kind_that_ends_with_its_first_token_has_no_speed_after_it(study, tmp_path):
    path = Path(study.summary.row("F2").files[0].path)
    record = read_record(path, DecodeRecord)

    def ended(rows):
        none = {"target_forwards": 0, "new_tokens": 1, "accepted": 0, "drafted": 0}
        none |= {"accepted_per_round": (), "drafted_per_round": ()}
        none |= {"tested_per_depth": (), "accepted_per_depth": ()}
        for row in rows:
            more = {} if not hasattr(row, "rounds") else {"rounds": 0.0, "reference_rounds": 0.0}
            yield row.model_copy(update=none | more) if row.kind == "chat" else row

    totals = record.totals.model_copy(update={"replays": tuple(ended(record.totals.replays))})
    samples = tuple(ended(record.samples))
    changed = record.model_copy(update={"samples": samples, "totals": totals})
    result = collected(replaced(study.plan, tmp_path, "F2", changed)).row("F2").decoding
    assert result.rounds_speedup.n == 40
    chat = next(kind for kind in result.kinds if kind.kind == "chat")
    assert (chat.rounds_speedup, chat.token_seconds) == (None, None)
    # Timed prompts alone end there: others of the kind go on, and nothing says how fast.
    changed = record.model_copy(update={"samples": samples})
    assert collected(replaced(study.plan, tmp_path, "F2", changed)).row("F2").decoding.rounds_speedup is None


def test_backward_rows_are_compared_with_the_full_method(study):
    assert study.summary.comparison("K4", "F4", "speed").estimate.value < 0


def test_a_missing_record_is_a_row_that_was_not_run(render):
    summary = render(missing=("A2", "F3")).summary
    assert summary.row("A2").status == "not_run"
    assert {part.outcome for part in summary.row("A2").parts} == {None}
    assert summary.comparison("A2", "baseline", "text") is None
    # F4 is compared with F3, which has no result, but stands above F2.
    assert [part.outcome for part in summary.row("F4").parts] == ["as_expected", None, "as_expected"]


def test_without_its_baseline_no_effect_is_claimed(render):
    summary = render(missing=("baseline",)).summary
    assert {part.outcome for row in summary.rows if row.method == "sdtp" for part in row.parts} == {None}
    assert summary.row("A2").sdtp is not None


def test_a_crash_keeps_its_exception(render):
    row = render(crashed=("A6",)).summary.row("A6")
    assert row.status == "crashed"
    assert row.outcome.exception == "RuntimeError"
    assert row.sdtp is None


def test_ties_are_exact_and_other_departures_are_not(render):
    row = render(unmatched=2).summary.row("F2")
    assert (row.decoding.matched, row.decoding.tied) == (13, 2)
    assert (row.parts[0].aspect, row.parts[0].outcome) == ("exact", "as_expected")


def test_what_a_row_changes_is_read_from_the_specs(study):
    assert [(item.key, item.versus, item.arm) for item in study.summary.row("K4").differences] == [
        ("shape.depth", 7, 1)
    ]
    assert study.summary.row("A7").scorer_shared
    assert not study.summary.row("A5").scorer_shared


def test_a_setting_that_the_arm_does_not_have_is_a_difference(study):
    """Prompt lookup has no draft weight of n-grams; before and after it are named."""
    found = {item.key: item for item in study.summary.row("PL").differences}
    assert found["drafter.context_weight"].versus is not None
    assert found["drafter.context_weight"].arm is None


def test_a_repeated_document_is_an_error(study, tmp_path):
    record = sdtp_record("A2", 4, SMALL["A2"])
    doubled = record.model_copy(update={"samples": (*record.samples, record.samples[0])})
    with pytest.raises(UserError, match=r"A2\.json: document 'module-000' occurs twice"):
        collected(replaced(study.plan, tmp_path, "A2", doubled))


def test_a_drafting_arm_must_stand_beside_autoregressive_decoding(study, tmp_path):
    record = decode_record("F2", 1.5, 1.0, DYNATREE["F2"][-2])
    wrong = record.model_copy(update={"spec": record.spec.model_copy(update={"reference": "generate"})})
    with pytest.raises(UserError, match=r"F2\.json: a drafting arm"):
        collected(replaced(study.plan, tmp_path, "F2", wrong))


def test_a_damaged_record_is_an_error(study, tmp_path):
    plan = replaced(study.plan, tmp_path, "A2", sdtp_record("A2", 4, SMALL["A2"]))
    path = tmp_path / "A2.json"
    path.write_text(path.read_text().replace('"nll": 2', '"nll": "x2', 1))
    with pytest.raises(UserError, match=r"A2\.json: damaged"):
        collected(plan)


def replaced(plan, folder, name, record):
    """The plan with another record for one experiment."""
    write_record(folder / f"{name}.json", record)
    content = json.loads(plan.read_text())
    for item in content["experiments"]:
        if item["id"] == name:
            item["records"] = [str(folder / f"{name}.json")]
    out = folder / "collect.json"
    out.write_text(json.dumps(content))
    return out


def test_levels_are_means_over_seeds_and_speed_is_of_the_timed_one(study):
    records = [
        json.loads((study.plan.parent / "record" / f"{name}.json").read_text())
        for name in ("baseline", "baseline-1", "baseline-2")
    ]
    kl = np.array([[row["kl"] for row in record["samples"]] for record in records])
    result = study.summary.row("baseline").sdtp
    assert result.seeds == 3
    assert result.kl.value == pytest.approx(kl.mean())
    assert result.kl.sd == pytest.approx(kl.mean(axis=0).std(ddof=1))
    assert result.kl_seed_sd == pytest.approx(kl.mean(axis=1).std(ddof=1))
    assert result.speedup.n == 30
    assert [bool(record["samples"][0]["pairs"]) for record in records] == [True, False, False]
    assert study.summary.row("A7").sdtp.kl_seed_sd is None


def test_one_crash_among_the_seeds_is_a_crash(study, tmp_path):
    crashed = sdtp_record("A2", 4, replace(SMALL["A2"], crashed=True), seed=1)
    row = collected(with_seed(study.plan, tmp_path, crashed)).row("A2")
    assert (row.status, row.outcome.exception, row.sdtp) == ("crashed", "RuntimeError", None)


def test_a_missing_seed_is_a_row_that_was_not_run(study, tmp_path):
    row = collected(with_seed(study.plan, tmp_path, None)).row("A2")
    assert (row.status, row.sdtp) == ("not_run", None)
    assert {part.reason for part in row.parts if part.kind == "confirmatory"} == {"not_run"}
    assert [file.sha256 is None for file in row.files] == [False, True, False]


def test_the_ranking_of_a_scorer_is_compared_with_the_baselines(whole):
    rankings = {item.experiments[0]: item for item in whole.summary.ranking}
    assert set(rankings) == {"baseline", "A5", "A3", "A3b", "A4", "A4b", "R9t", "L1", "L2", "L3"}
    baseline, ablated = rankings["baseline"], rankings["A3"]
    assert baseline.effect is None
    assert baseline.gain.estimate.value == pytest.approx(
        baseline.spearman.value - baseline.spearman_untrained.value
    )
    assert baseline.gain.estimate.low > 0
    assert ablated.effect.estimate.value == pytest.approx(ablated.spearman.value - baseline.spearman.value)
    # The seeds of both are paired.
    assert ablated.effect.seeds == 3
    # Another target does not compare.
    assert rankings["L1"].effect is None


def test_less_traffic_is_counted(whole):
    sent = {
        name: sum(whole.summary.row(name).sdtp.pipeline.boundary_bytes) for name in ("GB", "G0", "G1", "G2")
    }
    assert sent["GB"] < sent["G0"] < sent["G1"] < sent["G2"]
    (part,) = whole.summary.row("G1").parts
    assert (part.aspect, part.kind, part.outcome) == ("less_traffic", "counted", "as_expected")


def test_traffic_without_the_other_arm_is_not_tested(render):
    row = render(design=WHOLE, documents=4, missing=("G2",)).summary.row("G1")
    assert [(part.outcome, part.reason) for part in row.parts] == [(None, "no_comparator")]


def test_sweeps_that_have_not_run_are_left_out(render, tmp_path):
    study = render(lengths=(512, 1024))
    plan = json.loads(study.plan.read_text())
    plan["sweeps"].append(str(tmp_path / "nowhere.json"))
    (tmp_path / "collect.json").write_text(json.dumps(plan))
    points = collected(tmp_path / "collect.json").sweeps
    assert [(point.tokens, point.keep_ratio) for point in points] == [
        (tokens, ratio) for tokens in (512, 1024) for ratio in (0.9, 0.7, 0.5)
    ]
    point = points[0]
    assert point.prefill.low <= point.prefill.value <= point.prefill.high
    (pairs,) = (
        item["prefill"]
        for item in json.loads(Path(plan["sweeps"][0]).read_text())["points"]
        if item["keep_ratio"] == 0.9
    )
    # Three rounds: the middle one counts.
    assert point.prefill.value == sorted(math.log(pair["reference"] / pair["arm"]) for pair in pairs)[1]
    assert point.seconds == sorted(pair["arm"] for pair in pairs)[1]


def test_noise_is_of_each_reference_once(study):
    """K2 shares the record of F3; every other timed arm was measured by itself, each document once."""
    found = {noise.method: noise for noise in study.summary.noise}
    timed = {
        method: [row for row in study.summary.rows if row.method == method] for method in ("sdtp", "dynatree")
    }
    assert found["sdtp"].n == 30 * sum(row.sdtp.speedup is not None for row in timed["sdtp"])
    distinct = {row.files[0].path: row.decoding.prompts for row in timed["dynatree"]}
    assert found["dynatree"].n == sum(distinct.values())
    assert len(found["dynatree"].files) == len(distinct)
    assert 0 < found["sdtp"].median < found["sdtp"].p95 < 0.05


def test_arms_of_one_panel_share_their_references(study, tmp_path):
    """Their records hold the same times of the reference: one measurement, not two."""
    record = sdtp_record("A9", 40, SMALL["A9"])
    summary = collected(replaced(study.plan, tmp_path, "A7", record))
    assert [noise.n for noise in summary.noise] == [
        study.summary.noise[0].n - 30,
        study.summary.noise[1].n,
    ]


def test_without_second_runs_there_is_no_noise(render):
    names = ["baseline", *(name for name in SMALL if name != "baseline"), *DYNATREE]
    assert render(missing=tuple(names)).summary.noise == ()


def with_seed(plan, folder, record):
    """The plan with another record for the second seed of A2; None leaves it without."""
    path = folder / "A2-1.json"
    if record is not None:
        write_record(path, record)
    content = json.loads(plan.read_text())
    item = next(item for item in content["experiments"] if item["id"] == "A2")
    item["records"][1] = str(path)
    out = folder / "collect.json"
    out.write_text(json.dumps(content))
    return out
