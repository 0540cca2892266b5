"""Decoding experiments: which prompts are timed, which are replayed, and what a record is joined from."""

from pathlib import Path

import pytest
import yaml

from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]
KINDS = ("code", "documentation", "chat")

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def timed(plan):
    """Timed prompts of each kind, by decoding experiment."""
    found = {}
    for row in plan.rows:
        if row.experiment.method == "dynatree":
            (record,) = row.jobs
            counts = {record.inputs[kind].count for kind in KINDS}
            assert counts == {prompts.count for prompts in record.spec.prompts}
            (found[row.experiment.id],) = counts
    return found


def test_confirmatory_rows_and_what_they_are_compared_with_are_timed_on_more_prompts(raw):
    """F2 is above F1, F3 below F2 and F2b, F4 above F3 and F2, K3 below F4 and about F2b, D1 below F4."""
    found = timed(Plan(raw, ROOT))
    assert raw["paper"]["confirmatory"]["dynatree"] == ["F2", "F3", "F4", "K3", "D1"]
    whole = {"F1", "F2", "F2b", "F4", "K3", "D1"}
    # F3 has a budget of two prompts of its own.
    assert found == dict.fromkeys(raw["dynatree"]["ablations"], 2) | dict.fromkeys(whole, 5)


@pytest.mark.parametrize(
    ("settings", "whole", "exploratory", "slow"),
    [
        ({"timed": 7}, 7, 2, 2),
        ({"timed": 1, "exploratory": 1}, 1, 1, 1),
        ({"exploratory": None}, 5, 5, 2),
        ({"timed": None}, 20, 2, 2),
        ({"timed": None, "exploratory": None}, 20, 20, 2),
    ],
)
def test_budgets_of_timed_prompts(raw, settings, whole, exploratory, slow):
    raw["dynatree"]["decoding"] |= settings
    found = timed(Plan(raw, ROOT))
    # F3 is confirmatory, N2 exploratory; both have a budget of two prompts.
    assert [found[name] for name in ("F4", "E1", "F3", "N2")] == [whole, exploratory, slow, slow]


def test_an_effect_on_speed_is_measured_on_as_many_prompts_of_what_it_is_measured_against(raw):
    raw["paper"]["confirmatory"]["dynatree"] = ["E3"]
    raw["dynatree"]["ablations"]["E3"]["expect"] = {"quality": "same", "above": ["E1"]}
    assert {name for name, count in timed(Plan(raw, ROOT)).items() if count == 5} == {"E1", "E3"}
    raw["dynatree"]["ablations"]["E3"]["expect"] = {"speed": "up"}
    assert {name for name, count in timed(Plan(raw, ROOT)).items() if count == 5} == {"E2", "E3"}


def test_a_record_is_joined_from_timed_prompts_replays_and_costs(raw):
    plan = Plan(raw, ROOT)
    (record,) = plan.row("F4").jobs
    assert [*record.inputs] == [*KINDS, *(f"replayed_{kind}" for kind in KINDS), "costs"]
    assert {record.inputs[f"replayed_{kind}"].count for kind in KINDS} == {20}
    assert [(prompts.kind, prompts.count) for prompts in record.spec.replayed] == [
        (kind, 20) for kind in KINDS
    ]
    for kind in KINDS:
        decoded, replayed = (record.inputs[name] for name in (kind, f"replayed_{kind}"))
        assert (decoded.stage.rule, replayed.stage.rule) == ("decode", "replay")
        # The same prompts under the same arm, from the same artefacts; of texts its own alone.
        assert decoded.inputs.keys() == replayed.inputs.keys()
        assert decoded.inputs.keys() & raw["texts"].keys() == {raw["dynatree"]["prompts"][kind]["text"]}
        told = replayed.spec.model_dump(mode="json")
        assert told == {name: decoded.spec.model_dump(mode="json")[name] for name in told}


@pytest.mark.parametrize("name", ["F1", "K4"])
def test_without_a_drafter_nothing_is_replayed_or_priced(raw, name):
    (record,) = Plan(raw, ROOT).row(name).jobs
    assert [*record.inputs] == [*KINDS]
    assert (record.spec.replayed, record.spec.calibrated) == ((), False)
    assert all(len(job.inputs) == 2 for job in record.series.values())


def test_where_everything_is_timed_nothing_is_replayed_or_priced(raw):
    raw["dynatree"]["decoding"] |= {"timed": None, "exploratory": None}
    plan = Plan(raw, ROOT)
    (record,) = plan.row("F4").jobs
    assert [*record.inputs] == [*KINDS]
    assert record.spec.replayed == ()
    assert record.spec.calibrated
    assert not [job for job in plan.jobs.values() if job.stage.rule == "replay"]
    # Cost-aware trees alone need costs then.
    (costs,) = (job for job in plan.jobs.values() if job.stage.rule == "calibrate_costs")
    assert plan.label(costs.digest) == "O1"


def test_more_prompts_are_more_items_of_the_same_series(raw):
    before = Plan(raw, ROOT)
    raw["dynatree"]["decoding"] |= {"timed": 8, "exploratory": 3}
    raw["dynatree"]["prompts"]["code"]["count"] = 30
    after = Plan(raw, ROOT)
    for name, counts in (("F4", (8, 30)), ("E1", (3, 30)), ("F3", (2, 30))):
        (old,), (new,) = before.row(name).jobs, after.row(name).jobs
        assert {key: job.digest for key, job in new.inputs.items()} == {
            key: job.digest for key, job in old.inputs.items()
        }
        assert (new.inputs["code"].count, new.inputs["replayed_code"].count) == counts
        assert new.digest != old.digest


def test_rows_of_one_arm_are_one_arm_of_the_benchmark_which_has_the_first_ones_name(raw):
    """F1 is K4 on more timed prompts, K2 is F3."""
    raw["dynatree"]["benchmark"] |= {"prompts": None, "best_of": ["K4", "F4"]}
    plan = Plan(raw, ROOT)
    told = plan.benchmark_plan("x")
    assert {*told.arms.values()} == {*raw["dynatree"]["ablations"]} - {"K2", "K4"}
    assert told.arms.keys() == plan.benchmark.spec.arms.keys()
    assert told.titles.keys() == {*told.arms.values()}
    assert told.best_of == ("F1", "F4")
    # As many prompts as are timed.
    assert {prompts.count for prompts in plan.benchmark.spec.prompts} == {5}
