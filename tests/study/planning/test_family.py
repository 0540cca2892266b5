"""The plan of the confirmatory family is that of before its first results, and says what changed since."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from ablations.study.planning import family
from ablations.study.planning.family import LATE, PLANS, recorded_plan
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture
def today(monkeypatch):
    """A function that sets the date."""

    def becomes(date: str) -> None:
        monkeypatch.setattr(family, "_today", lambda: date)

    becomes("2026-01-01")
    return becomes


def planned(raw):
    plan = Plan(copy.deepcopy(raw), ROOT)
    return recorded_plan(plan.family, plan.config)


def measure(raw, name, block="0-10.json"):
    """One block of an experiment."""
    folder = Plan(copy.deepcopy(raw), ROOT).row(name).jobs[0].inputs["text"].path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / block).write_text("{}")


def test_until_the_first_result_a_plan_may_change(raw, today):
    before = planned(raw)
    today("2026-01-02")
    assert planned(raw) == before
    raw["sdtp"]["ablations"]["A7"]["expect"] = {"text": "down"}
    changed = planned(raw)
    assert (changed.planned, changed.changed) == ("2026-01-02", ())
    assert changed.digest != before.digest
    assert [plan["digest"] for plan in json.loads(PLANS.read_text())] == [changed.digest]


def test_what_changes_after_the_first_result_is_told(raw, today):
    before = planned(raw)
    measure(raw, "A3")
    today("2026-01-02")
    assert planned(raw) == before
    raw["sdtp"]["ablations"]["A7"]["expect"] = {"text": "down"}
    raw["paper"]["confirmatory"]["dynatree"].remove("D1")
    raw["paper"]["thresholds"] = {"text_same": 0.06}
    changed = planned(raw)
    assert changed.planned == "2026-01-01"
    assert changed.changed == (
        'predictions.A7.text null -> "down"',
        'predictions.A7.quality "down" -> null',
        'predictions.A7.speed "up" -> null',
        'predictions.D1 {"versus": "F4", "below": ["F4"]} -> null',
        "thresholds.text_same 0.05 -> 0.06",
    )


def test_documents_of_a_declared_look_are_no_change_and_others_are(raw, today):
    before = planned(raw)
    measure(raw, "A3")
    raw["sdtp"]["evaluation"]["documents"] = 120
    raw["sdtp"]["evaluation"]["retrieval"]["count"] = 80
    assert planned(raw) == before
    raw["paper"]["looks"] = []
    assert planned(raw).changed[-2:] == ("counts.documents null -> 120", "counts.retrieval null -> 80")


def test_how_many_prompts_are_replayed_and_timed_is_told(raw, today):
    planned(raw)
    measure(raw, "A3")
    raw["dynatree"]["decoding"]["timed"] = 6
    raw["dynatree"]["prompts"]["chat"]["count"] = 21
    assert planned(raw).changed == ("counts.prompts.chat 20 -> 21", "counts.timed_prompts 5 -> 6")


@pytest.mark.parametrize("name", ["code", "replayed_code"])
def test_a_replay_is_a_result_and_costs_are_none(raw, today, name):
    (record,) = Plan(copy.deepcopy(raw), ROOT).row("F4").jobs
    costs = record.inputs["costs"].path
    costs.parent.mkdir(parents=True)
    costs.write_text("{}")
    before = planned(raw)
    assert before.changed == ()
    PLANS.unlink()
    folder = record.inputs[name].path
    folder.mkdir(parents=True)
    (folder / "0-5.json").write_text("{}")
    assert planned(raw).changed == (LATE,)


@pytest.mark.parametrize("block", ["0-10.json", "0-crashed.json"])
def test_neither_another_name_nor_another_study_hides_a_change(raw, today, block):
    planned(raw)
    measure(raw, "A3", block)
    raw["study"] = "another"
    raw["sdtp"]["ablations"]["A3"]["title"] = "Another title"
    assert planned(raw).changed == ()
    raw["paper"]["confirmatory"]["sdtp"].remove("A7")
    assert len(planned(raw).changed) == 1
    raw["paper"]["confirmatory"]["sdtp"].append("A7")
    assert planned(raw).changed == ()


def test_a_family_of_which_nothing_is_measured_yet_has_a_plan_of_its_own(raw, today):
    measure(raw, "A3")
    first = planned(raw)
    assert first.changed == (LATE,)
    raw["sdtp"]["evaluation"]["prompt_tokens"] = 640
    today("2026-01-02")
    # The same was predicted before.
    assert (planned(raw).planned, planned(raw).changed) == ("2026-01-01", ())
    raw["sdtp"]["evaluation"]["prompt_tokens"] = 768
    assert planned(raw) == first


def test_a_lost_plan_is_told(raw, today):
    planned(raw)
    measure(raw, "A3")
    PLANS.write_text("[{")
    assert planned(raw).changed == (LATE,)


def test_without_a_family_nothing_is_planned(raw):
    raw["paper"]["confirmatory"] = {}
    assert planned(raw) is None
    assert not PLANS.exists()


def test_the_paper_is_told(raw):
    plan = Plan(raw, ROOT)
    found = recorded_plan(plan.family, plan.config)
    assert plan.paper_plan("x", found).family == found
