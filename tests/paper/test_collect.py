"""The summary says what the records say, and leaves nothing out."""

import json
import math

import numpy as np
import pytest

from ablations.paper.collect import summarise
from ablations.study.contracts.dynatree import Pruning, Shape
from ablations.study.contracts.paper import PaperPlan
from ablations.study.errors import UserError
from ablations.study.files import sha256_file
from ablations.study.record_io import write_record
from tests.paper.design import SMALL
from tests.paper.synthetic import decode_record, sdtp_record


def collected(plan):
    return summarise(PaperPlan.model_validate_json(plan.read_bytes()))


def test_every_experiment_is_a_row_with_its_record(study):
    plan = json.loads(study.plan.read_text())
    assert [row.id for row in study.summary.rows] == [item["id"] for item in plan["experiments"]]
    row = study.summary.row("A2")
    assert [file.sha256 for file in row.files] == [
        sha256_file(study.plan.parent / "record" / f"{name}.json") for name in ("A2", "A2-1", "A2-2")
    ]


def test_effects_are_differences_of_paired_differences(study):
    records = {
        name: json.loads((study.plan.parent / "record" / f"{name}.json").read_text())
        for name in ("A6", "baseline")
    }
    own, base = (
        np.array([row["nll"] - row["reference_nll"] for row in record["samples"]])
        for record in records.values()
    )
    effect = study.summary.comparison("A6", "baseline", "quality")
    assert effect.estimate.value == pytest.approx((own - base).mean())
    assert effect.estimate.n == 32
    assert effect.estimate.low > 0.3
    assert study.summary.row("A6").verdict == "supported"


def test_timed_documents_alone_enter_speed(study):
    assert study.summary.comparison("A7", "baseline", "speed").estimate.n == 24
    assert study.summary.comparison("A7", "baseline", "quality").estimate.n == 32


def test_autoregressive_decoding_is_one_by_definition(study):
    result = study.summary.row("F1").decoding
    assert result.autoregressive
    assert (result.speedup.value, result.speedup.low) == (0.0, None)
    assert math.exp(result.library_speedup.value) == pytest.approx(1.25, rel=0.05)


def test_a_slow_arm_is_compared_on_its_own_prompts(study):
    effect = study.summary.comparison("F3", "F2", "speed")
    assert effect.estimate.n == 6
    assert effect.unpaired == 10


def test_backward_rows_are_compared_with_the_full_method(study):
    assert study.summary.comparison("K4", "F4", "speed").estimate.value < 0


def test_holm_runs_over_the_family(study):
    family = [item for item in study.summary.comparisons if item.measure == "quality"]
    smallest = min(family, key=lambda item: item.p)
    assert smallest.p_adjusted == pytest.approx(min(1.0, len(family) * smallest.p))


def test_a_missing_record_is_a_row_that_was_not_run(render):
    summary = render(missing=("A2", "F3")).summary
    assert summary.row("A2").status == "not_run"
    assert summary.row("A2").verdict == "not_tested"
    assert summary.comparison("A2", "baseline", "quality") is None
    # F4 is compared with F3, which has no result, but stands above F2: support is not complete.
    assert [part.verdict for part in summary.row("F4").parts] == ["supported", "not_tested", "supported"]
    assert summary.row("F4").verdict == "inconclusive"


def test_without_its_baseline_no_effect_is_claimed(render):
    summary = render(missing=("baseline",)).summary
    assert {row.verdict for row in summary.rows if row.method == "sdtp"} == {"not_tested"}
    assert summary.row("A2").sdtp is not None


def test_a_crash_keeps_its_exception(render):
    row = render(crashed=("A6",)).summary.row("A6")
    assert row.status == "crashed"
    assert row.outcome.exception == "RuntimeError"
    assert row.sdtp is None


def test_ties_are_exact_and_other_departures_are_not(render):
    row = render(unmatched=2).summary.row("F2")
    assert (row.decoding.matched, row.decoding.tied) == (14, 2)
    assert row.parts[0].verdict == "supported"


def test_what_a_row_changes_is_read_from_the_specs(study):
    assert [(item.key, item.versus, item.arm) for item in study.summary.row("K4").differences] == [
        ("shape.depth", 7, 1)
    ]
    assert study.summary.row("A7").scorer_shared
    assert not study.summary.row("A5").scorer_shared


def test_a_repeated_document_is_an_error(study, tmp_path):
    record = sdtp_record("A2", 4, SMALL["A2"])
    doubled = record.model_copy(update={"samples": (*record.samples, record.samples[0])})
    with pytest.raises(UserError, match=r"A2\.json: document 'module-000' occurs twice"):
        collected(replaced(study.plan, tmp_path, "A2", doubled))


def test_a_drafting_arm_must_stand_beside_autoregressive_decoding(study, tmp_path):
    record = decode_record("F2", 4, 1.5, 1.0, (Shape(depth=6), Pruning()), False, 0)
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
