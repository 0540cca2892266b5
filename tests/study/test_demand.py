"""What jobs ask a scheduler for."""

import json
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.study.config import Resources
from ablations.study.planning.demand import forwarded_tokens, memory_mib, minutes
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[2]
WITHOUT_MODEL = {"prepare_model", "prepare_text", "fit_ngram"}

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def plan() -> Plan:
    raw: dict = {}
    for path in ("config.yaml", "workflow/studies/tiny.yaml"):
        update_config(raw, yaml.safe_load((ROOT / path).read_text()))
    return Plan(raw, ROOT)


def prepared(plan: Plan, parameters: int) -> dict[str, Job]:
    """Jobs by rule, their models prepared with so many parameters."""
    for job in plan.jobs.values():
        if job.stage.rule == "prepare_model":
            job.path.parent.mkdir(parents=True, exist_ok=True)
            job.path.write_text(json.dumps({"facts": {"parameters": parameters}}))
    return {job.stage.rule: job for job in plan.jobs.values()}


def test_every_job_that_runs_a_model_counts_its_tokens(plan):
    counted = {job.stage.rule for job in plan.jobs.values() if forwarded_tokens(job) > 0}
    assert counted == {job.stage.rule for job in plan.jobs.values()} - WITHOUT_MODEL


def test_memory_follows_the_model_and_the_ranks(plan):
    jobs = prepared(plan, 2**30)
    settings = Resources()
    assert memory_mib(jobs["decode"], settings, 1) == 2048 + 12 * 1024
    assert memory_mib(jobs["evaluate_pipeline"], settings, 2) == 2 * (2048 + 12 * 1024)
    assert memory_mib(jobs["prepare_text"], settings, 1) == 2048
    assert memory_mib(jobs["prepare_model"], settings, 1) == 8192
    assert memory_mib(jobs["decode"], Resources(mem_mb=5000), 2) == 10000


def test_time_follows_spec_model_and_device_up_to_the_limit(plan):
    small = {rule: minutes(job, Resources()) for rule, job in prepared(plan, 10**6).items()}
    large = {rule: minutes(job, Resources()) for rule, job in prepared(plan, 10**10).items()}
    gpu = {rule: minutes(job, Resources(gpu=1)) for rule, job in prepared(plan, 10**10).items()}
    for rule in large.keys() - WITHOUT_MODEL:
        assert 20 < small[rule] <= gpu[rule] <= large[rule] <= 720
    assert small["decode"] == 21 < gpu["decode"] < large["decode"]
    assert {large[rule] for rule in WITHOUT_MODEL} == {20}
    assert minutes(prepared(plan, 10**10)["sweep"], Resources(runtime=60)) == 60


def test_before_the_model_is_prepared_a_dry_run_counts_none(plan):
    job = next(job for job in plan.jobs.values() if job.stage.rule == "decode")
    assert (memory_mib(job, Resources(), 1), minutes(job, Resources())) == (2048, 20)
