"""Which jobs an edit of the source makes stale: those that run the module, and what reads their results.

Records are joined from what was measured: an edit of what joins them alone measures nothing.
"""

import pkgutil
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

import ablations.specs
from ablations.study.planning import digests, stages
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("working_folder")

PREPARING = {"prepare_model", "prepare_text"}
SDTP_EVALUATIONS = {"evaluate_sdtp", "evaluate_pipeline"}
SDTP = {"saliency", "train_pruner", "calibrate", "sweep", *SDTP_EVALUATIONS}
REPLAYING = {"calibrate_drafter", "calibrate_costs", "replay", "grid"}
DRAFTING = {*REPLAYING, "decode", "benchmark"}
DECODING = {"calibrate_target", *DRAFTING}
DYNATREE = {"fit_ngram", "distil_teacher", "distil", *DECODING}
JOIN = {"join_record"}

USERS = {
    "lm": PREPARING | SDTP | DYNATREE | JOIN,
    "userfiles": PREPARING | {"distil"},
    "sdtp.counts": SDTP | JOIN,
    "sdtp.saliency": SDTP | JOIN,
    "sdtp.train": SDTP - {"saliency"} | JOIN,
    "sdtp.pruning": SDTP - {"saliency", "train_pruner"} | JOIN,
    "sdtp.calibrate": {"calibrate", *SDTP_EVALUATIONS, *JOIN},
    "sdtp.timing": {"sweep", *SDTP_EVALUATIONS, *JOIN},
    "sdtp.evaluate": SDTP_EVALUATIONS | JOIN,
    "sdtp.retrieval": SDTP | JOIN,
    "sdtp.record": JOIN,
    "sdtp.sweep": {"sweep"},
    "dynatree.arm": DRAFTING | JOIN,
    "dynatree.prompts": DECODING | JOIN,
    "dynatree.costs": DECODING | JOIN,
    "dynatree.counts": REPLAYING | {"decode", *JOIN},
    "dynatree.replay": REPLAYING | {"decode", *JOIN},
    "dynatree.exactness": {"decode", "benchmark", *JOIN},
    "dynatree.fit_ngram": {"fit_ngram"},
    "dynatree.distil_teacher": {"distil_teacher"},
    "dynatree.distil": {"distil"},
    "dynatree.calibrate_target": {"calibrate_target"},
    # Calibrated drafters open what this one makes.
    "dynatree.calibrate_drafter": DRAFTING,
    "dynatree.calibrate_costs": {"calibrate_costs"},
    "dynatree.decode": {"decode", *JOIN},
    "dynatree.benchmark": {"benchmark"},
    "dynatree.grid": {"grid"},
}
"""Rules whose own code a spec's module is."""

MEASURING = {
    "core.job": PREPARING | SDTP | DYNATREE | JOIN,
    "core.panel": SDTP - {"saliency", "calibrate"} | REPLAYING | {"decode"},
    "evidence.join": JOIN,
    "lm.layered": {"fit_ngram"} | SDTP | DYNATREE,
    "lm.packing": SDTP - {"saliency", "train_pruner"} | {"distil_teacher"} | DECODING,
    "sdtp.scores.importance": SDTP_EVALUATIONS,
    "sdtp.pruned.selection": SDTP - {"saliency", "train_pruner"},
    "sdtp.training.losses": {"train_pruner"},
    "dynatree.arm": {"decode", "replay", "benchmark"},
    "dynatree.verify": DECODING,
    "dynatree.drafters.lookup": DRAFTING,
    "dynatree.drafters.calibrated": DRAFTING,
    "dynatree.growth.dynamic": {"calibrate_costs", "decode", "replay", "benchmark"},
    "dynatree.distilling.model": {"distil"} | DRAFTING,
    # What is timed runs none of these.
    "dynatree.replay": REPLAYING,
    "dynatree.traces": REPLAYING,
    "dynatree.replay_arms": {"replay"},
    "dynatree.decode": {"decode"},
    "dynatree.metering": {"calibrate_costs"},
    "dynatree.acceptance": {"calibrate_drafter", "calibrate_costs"},
    "dynatree.traced": {"calibrate_drafter", "calibrate_costs", "grid"},
    "dynatree.calibrate_target": {"calibrate_target"},
    "dynatree.calibrate_costs": {"calibrate_costs"},
    "dynatree.counting": DRAFTING,
}
"""The same of modules that measure, where the papers' methods are likely to be extended."""

ASKING = (
    "core.supervise",
    "evidence.statistics",
    "evidence.corrected",
    "study.config.dynatree",
    "study.planning.panels",
    "study.planning.plan",
    "paper.section",
)
"""Modules of configuration, planning, statistics and paper, and what starts the process of a panel."""


@pytest.fixture
def raw():
    """The full study with a draft of its own, which has a job of every stage."""
    found: dict = {}
    for name in ("config.yaml", "workflow/studies/full.yaml", "workflow/studies/shipped.yaml"):
        update_config(found, yaml.safe_load((ROOT / name).read_text()))
    return found


@pytest.mark.parametrize(
    ("module", "users"),
    [
        *((f"specs.{name}", users) for name, users in USERS.items()),
        *MEASURING.items(),
        *((name, set()) for name in ASKING),
    ],
)
def test_an_edit_makes_stale_what_runs_the_module_and_what_reads_its_results(raw, monkeypatch, module, users):
    jobs = Plan(raw, ROOT).jobs
    assert {job.stage.rule for job in jobs.values()} == PREPARING | SDTP | DYNATREE | JOIN
    expected: set[str] = set()
    for digest, job in jobs.items():
        # What a job reads comes before it.
        if job.stage.rule in users or expected & {needed.digest for needed in job.inputs.values()}:
            expected.add(digest)
    source = digests.module_source

    def edited(name):
        return source(name) + "\nEDITED = 1\n" * (name == f"ablations.{module}")

    monkeypatch.setattr(digests, "module_source", edited)
    assert jobs.keys() - Plan(raw, ROOT).jobs.keys() == expected


def test_every_spec_has_its_users_written_down():
    found = pkgutil.walk_packages(ablations.specs.__path__, "ablations.specs.")
    assert {module.name.removeprefix("ablations.specs.") for module in found if not module.ispkg} == {*USERS}


def test_no_measured_job_runs_configuration_statistics_or_paper(raw):
    plan = Plan(raw, ROOT)
    ground = {"__init__", "core", "specs", "lm", "sdtp", "dynatree"}
    for module in {job.stage.module for job in plan.jobs.values() if job.stage is not stages.JOIN}:
        closure = plan.sources.code.closure(module)
        assert module in closure
        assert {name.split(".")[1] for name in closure if name != "ablations"} <= ground, module


def test_records_are_joined_without_what_measures(raw):
    plan = Plan(raw, ROOT)
    closure = plan.sources.code.closure(stages.JOIN.module)
    assert {name.split(".")[1] for name in closure if name != "ablations"} == {"core", "specs", "evidence"}
    assert "torch" not in plan.sources.code.computes_with(stages.JOIN.module)
    assert [name for name in closure if "evidence." in name] == ["ablations.evidence.join"]
