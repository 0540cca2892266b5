"""What drafters are made of and calibrated on: shared wherever it is the same."""

import copy
from pathlib import Path

import pytest
import yaml

from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]
CALIBRATING = {"calibrate_target", "calibrate_drafter", "calibrate_costs"}
SOURCES = {"F4": ("ngram", "distilled"), "N1": ("distilled",), "NG": ("ngram",), "PL": ("prompt_lookup",)}
"""Kinds of drafters that the drafter of a row draws on."""

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def without_calibration(raw):
    """The study where everything is timed, and nothing needs costs."""
    changed = copy.deepcopy(raw)
    changed["dynatree"]["calibration"] = None
    changed["dynatree"]["decoding"] |= {"timed": None, "exploratory": None}
    changed["dynatree"]["only"] = [name for name in raw["dynatree"]["ablations"] if name != "O1"]
    changed["dynatree"]["benchmark"]["best_of"] = ["F4"]
    return changed


def rules(plan):
    return {job.stage.rule for job in plan.jobs.values()}


def acceptances(job):
    return {name: found for name, found in job.inputs.items() if name.endswith("_acceptance")}


@pytest.mark.parametrize("name", SOURCES)
def test_whatever_drafts_has_the_acceptance_of_each_source_that_it_draws_on(raw, name):
    (record,) = Plan(raw, ROOT).row(name).jobs
    expected = {f"{kind}_acceptance": kind for kind in SOURCES[name]}
    for job in (*record.series.values(), record.inputs["costs"]):
        assert job.spec.calibrated
        assert {one: found.spec.drafter.kind for one, found in acceptances(job).items()} == expected
        for kind in SOURCES[name]:
            calibration = job.inputs[f"{kind}_acceptance"]
            own = {kind} & {"ngram", "distilled"}
            # Costs of the target have no part in it.
            assert calibration.inputs.keys() == own | {"model", "python", "chat_validation"}
            assert all(calibration.inputs[one].digest == job.inputs[one].digest for one in own)


def test_a_mixture_shares_calibrations_with_what_it_mixes_and_each_drafter_has_costs_of_its_own(raw):
    plan = Plan(raw, ROOT)
    records = {name: plan.row(name).jobs[0] for name in (*SOURCES, "F2", "O1", "N4")}

    def digests(kind):
        found = (series.inputs for record in records.values() for series in record.series.values())
        return {inputs[f"{kind}_acceptance"].digest for inputs in found if f"{kind}_acceptance" in inputs}

    assert [len(digests(kind)) for kind in ("ngram", "distilled", "prompt_lookup")] == [1, 1, 1]
    costs = {name: record.inputs["costs"].digest for name, record in records.items()}
    assert costs["F4"] == costs["F2"] == costs["O1"]
    assert costs["N1"] == costs["N4"]
    assert len({*costs.values()}) == len(SOURCES)
    assert len(plan.jobs_of(records["F4"].inputs["costs"].stage)) == len(SOURCES)


def test_an_ngram_drafter_of_another_weight_is_calibrated_apart(raw):
    raw["dynatree"]["drafters"]["other"] = {**raw["dynatree"]["drafters"]["ngram"], "context_weight": 8}
    raw["dynatree"]["ablations"]["NG"]["change"]["drafter"] = "other"
    plan = Plan(raw, ROOT)
    own, mixed = (plan.row(name).jobs[0].inputs["code"].inputs for name in ("NG", "F4"))
    assert own["ngram"].digest == mixed["ngram"].digest
    assert own["ngram_acceptance"].digest != mixed["ngram_acceptance"].digest
    assert own["ngram_acceptance"].spec.drafter.context_weight == 8


def test_costs_are_of_calibrated_drafters_on_the_targets_costs(raw):
    costs = Plan(raw, ROOT).row("F4").jobs[0].inputs["costs"]
    assert costs.inputs.keys() == {
        *("model", "python", "chat_validation", "target"),
        *("ngram", "distilled", "ngram_acceptance", "distilled_acceptance"),
    }
    share = raw["dynatree"]["drafters"]["hybrid"]["share"]
    assert (costs.spec.drafter.kind, costs.spec.drafter.share) == ("hybrid", share)
    assert [(one.kind, one.count) for one in costs.spec.prompts] == [("documentation", 6), ("chat", 6)]
    target = costs.inputs["target"]
    assert target.stage.rule == "calibrate_target"
    assert target.inputs.keys() == {"model", "python", "chat_validation"}
    assert target.spec.prompts == costs.spec.prompts
    assert target.spec.compute == costs.spec.compute


def test_without_a_calibration_no_drafter_is_calibrated(raw):
    plan = Plan(without_calibration(raw), ROOT)
    assert not rules(plan) & {*CALIBRATING, "replay"}
    for row in plan.rows:
        if row.experiment.method == "dynatree":
            (record,) = row.jobs
            assert not record.spec.calibrated
            assert record.inputs.keys() == {"code", "documentation", "chat"}
            assert not any(job.spec.calibrated or acceptances(job) for job in record.series.values())
    assert not any(arm.calibrated for arm in plan.benchmark.spec.arms.values())


def test_a_calibration_changes_nothing_of_what_drafts_not(raw):
    bare = without_calibration(raw)
    calibrated = copy.deepcopy(bare)
    calibrated["dynatree"]["calibration"] = raw["dynatree"]["calibration"]
    before, after = Plan(bare, ROOT), Plan(calibrated, ROOT)
    # Costs decide nothing there; acceptance does.
    assert rules(after) - rules(before) == {"calibrate_drafter"}
    same = {
        row.experiment.id
        for row, other in zip(before.rows, after.rows, strict=True)
        if [job.digest for job in row.jobs] == [job.digest for job in other.jobs]
    }
    pruning = {row.experiment.id for row in before.rows if row.experiment.method == "sdtp"}
    assert same == pruning | {"F1", "K4"}
