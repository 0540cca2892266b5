"""The overlay whose benchmark proves every arm exact."""

from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("working_folder")


def test_every_arm_decodes_at_least_thirty_prompts_in_float32_with_the_default_studys_artefacts():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    default = Plan(raw, ROOT).benchmark
    update_config(raw, yaml.safe_load((ROOT / "workflow/studies/exactness.yaml").read_text()))
    exact = Plan(raw, ROOT).benchmark
    assert sum(chosen.count for chosen in exact.spec.prompts) >= 30
    assert exact.spec.compute.dtype == "float32"
    whole = [arm.model_copy(update={"prompts": None}) for arm in default.spec.arms.values()]
    assert list(exact.spec.arms.values()) == whole
    assert all(arm.prompts is None for arm in exact.spec.arms.values())
    assert {name: job.digest for name, job in exact.inputs.items()} == {
        name: job.digest for name, job in default.inputs.items()
    }
