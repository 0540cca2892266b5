"""Memory and time that jobs and panels request from a scheduler."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from ablations.study.config.study import Resources
from ablations.study.estimate.requests import Requests
from ablations.study.planning.jobs import Job
from ablations.study.planning.panels import PlannedPanel
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "workflow/plan/models.yaml"
WITHOUT_MODEL = {"prepare_text", "fit_ngram", "join_record"}
LARGE = "mistralai/Mistral-7B-Instruct-v0.2"


@pytest.fixture
def plans(tmp_path, monkeypatch):
    """Plans of the tiny study, with another model in place of the tiny one."""
    for name in ("texts", "drafts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)

    def plan(name: str | None = None, **sections: Any) -> Plan:
        raw: dict = {}
        for path in ("config.yaml", "workflow/studies/tiny.yaml"):
            update_config(raw, yaml.safe_load((ROOT / path).read_text()))
        if name:
            raw["models"]["tiny_llama"] = {"source": "pretrained", "name": name, "layers": 32}
        update_config(raw, sections)
        return Plan(raw, ROOT)

    return plan


@pytest.fixture
def jobs(plans):
    """Jobs of such a study by rule."""

    def planned(name: str | None = None) -> dict[str, Job]:
        jobs_by_rule = {job.stage.rule: job for job in plans(name).jobs.values()}
        # Not the job of the draft model, which the tiny study prepares too.
        return {**jobs_by_rule, "prepare_model": jobs_by_rule["decode"].inputs["model"]}

    return planned


def requests(**settings) -> Requests:
    return Requests(Resources(**settings), MODELS)


def test_memory_follows_the_model_and_the_ranks(jobs):
    small, large = jobs(), jobs(LARGE)
    unlimited = requests()
    # Seven billion parameters in float32 are 27 GiB.
    assert 2048 < unlimited.memory_mib(small["decode"], 1) < 2100
    assert 2 * 27 * 1024 < unlimited.memory_mib(large["decode"], 1) < 3 * 27 * 1024
    for of_model in (small, large):
        one_rank, two_ranks = (unlimited.memory_mib(of_model["evaluate_pipeline"], ranks) for ranks in (1, 2))
        assert two_ranks == 2 * one_rank
        assert unlimited.memory_mib(of_model["prepare_text"], 1) == 2048
    assert 3 * 27 * 1024 < unlimited.memory_mib(large["prepare_model"], 1) < 4 * 27 * 1024
    assert requests(mem_mb=5000).memory_mib(large["decode"], 2) == 10000


def test_time_follows_spec_model_and_device_up_to_the_limit(jobs):
    small = {rule: requests().minutes(job) for rule, job in jobs().items()}
    large = {rule: requests().minutes(job) for rule, job in jobs(LARGE).items()}
    gpu = {rule: requests(gpu=1).minutes(job) for rule, job in jobs(LARGE).items()}
    for rule in large.keys() - WITHOUT_MODEL:
        assert 20 < small[rule] <= gpu[rule] <= large[rule] <= 720
    assert small["decode"] < gpu["decode"] < large["decode"]
    assert {large[rule] for rule in WITHOUT_MODEL} == {20}
    assert requests(runtime=30).minutes(jobs(LARGE)["sweep"]) == 30


def test_a_checkpoint_of_unknown_size_is_prepared_with_room(jobs):
    unknown = jobs("someone/else")
    assert requests().memory_mib(unknown["prepare_model"], 1) == 8192
    assert requests().minutes(unknown["decode"]) == 20


def panel(plan: Plan, rule: str, *names: str) -> PlannedPanel:
    """The panel of a rule for these experiments."""
    return next(each for each in plan.panels(plan.asked(names), {}) if each.stage.rule == rule)


@pytest.mark.parametrize(
    "rule",
    [
        *("evaluate_sdtp", "train_pruner", "sweep"),
        *("calibrate_drafter", "calibrate_costs", "decode", "replay", "grid"),
    ],
)
def test_a_panel_needs_less_than_its_jobs_one_by_one(plans, rule):
    whole, large = panel(plans(LARGE), rule), requests(runtime=10**9)
    alone = [large.minutes(job) - 20 for job in whole.jobs]
    assert len(alone) > 1
    assert max(alone) <= large.minutes(whole) - 20 < sum(alone)
    memory = [large.memory_mib(job, 1) for job in whole.jobs]
    # The weights are there once, 27 GiB of them; a decoding arm adds its cache alone.
    assert max(memory) <= large.memory_mib(whole, 1) < max(memory) + 27 * 1024


def test_a_panel_is_asked_for_what_it_lacks(plans):
    large = requests(runtime=10**9)
    one, two = (panel(plans(LARGE), "evaluate_sdtp", *names) for names in (["A7"], ["A7", "A9"]))
    more = panel(plans(LARGE, sdtp={"evaluation": {"documents": 60}}), "evaluate_sdtp", "A7")
    assert large.minutes(one) < large.minutes(two) < large.minutes(more)
    # What both lack is done once of the unpruned model.
    assert large.minutes(two) - 20 < 2 * (large.minutes(one) - 20)


def test_limits_of_a_study_hold_for_panels_too(plans):
    whole = panel(plans(LARGE), "decode")
    assert requests(runtime=30).minutes(whole) == 30
    assert requests(mem_mb=5000).memory_mib(whole, 1) == 5000
