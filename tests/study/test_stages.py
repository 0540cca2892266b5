"""The table of stages against the jobs that the studies of this repository plan."""

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter
from snakemake.utils import update_config

from ablations.study.planning.digests import CodeIndex
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import STAGES

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted((ROOT / "workflow/studies").glob("*.yaml"))

pytestmark = pytest.mark.usefixtures("working_folder", "fetched")


@pytest.fixture
def jobs():
    """Jobs of the default study and of it under each overlay, by digest."""
    found = {}
    for overlay in (None, *OVERLAYS):
        raw = yaml.safe_load((ROOT / "config.yaml").read_text())
        if overlay is not None:
            update_config(raw, yaml.safe_load(overlay.read_text()))
        found |= Plan(raw, ROOT).jobs
    return found


def test_the_table_is_what_planned_jobs_read_and_are_told(jobs):
    needs = {stage.rule: set() for stage in STAGES}
    for job in jobs.values():
        assert TypeAdapter(job.stage.spec).validate_python(job.spec) is job.spec
        needs[job.stage.rule] |= {needed.stage.rule for needed in job.inputs.values()}
    assert needs == {stage.rule: {needed.rule for needed in stage.needs} for stage in STAGES}
    assert {job.stage.rule for job in jobs.values()} == needs.keys()


def test_no_job_runs_the_code_that_plans_it():
    """An edit of the table makes no measurement stale."""
    code = CodeIndex()
    for stage in STAGES:
        assert not [name for name in code.closure(stage.module) if "study.planning" in name], stage.rule
