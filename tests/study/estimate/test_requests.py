"""Memory and time that jobs request from a scheduler."""

from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.study.config.study import Resources
from ablations.study.estimate.requests import Requests
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "workflow/plan/models.yaml"
WITHOUT_MODEL = {"prepare_text", "fit_ngram"}
LARGE = "mistralai/Mistral-7B-Instruct-v0.2"


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs of the tiny study by rule, with another model in place of the tiny one."""
    for name in ("texts", "drafts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)

    def planned(name: str | None = None) -> dict[str, Job]:
        raw: dict = {}
        for path in ("config.yaml", "workflow/studies/tiny.yaml"):
            update_config(raw, yaml.safe_load((ROOT / path).read_text()))
        if name:
            raw["models"]["tiny_llama"] = {"source": "pretrained", "name": name, "layers": 32}
        jobs_by_rule = {job.stage.rule: job for job in Plan(raw, ROOT).jobs.values()}
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
