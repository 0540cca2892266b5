"""Inputs of jobs and jobs due: in an empty folder, after a run, and after artefacts were damaged."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ablations.study.planning.freshness import due_jobs, finished_jobs, job_inputs, reset_future_times
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def evaluation():
    """Job of an evaluation's text, whose chain of inputs is model, saliency, pruner."""
    plan = Plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT)
    return plan.row("baseline").jobs[0].inputs["text"]


def finish(*jobs):
    for job in jobs:
        path = job.path / f"0-{job.count}.json" if job.stage.has_blocks else job.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def path_of(job):
    return str(job.path)


def test_a_new_job_waits_for_what_it_reads_and_times_say_nothing(evaluation):
    named, rebuilt = job_inputs(evaluation, {}, path_of)
    artefacts = {name: str(artefact.path) for name, artefact in evaluation.inputs.items()}
    assert named == {"spec": str(evaluation.spec_path), **artefacts}
    assert not rebuilt


def test_a_finished_job_needs_its_inputs_no_more(evaluation):
    finish(evaluation)
    model = evaluation.inputs["model"].digest
    for damage in ({}, {model: "results/model/weights"}):
        assert job_inputs(evaluation, damage, path_of) == ({"spec": str(evaluation.spec_path)}, {})


def test_a_new_job_waits_for_an_input_that_is_made_again(evaluation):
    model = evaluation.inputs["model"]
    named, rebuilt = job_inputs(evaluation, {model.digest: "results/model/weights"}, path_of)
    assert rebuilt == {"model": str(model.path)}
    assert "model" not in named
    assert "pruner" in named


def test_a_new_job_waits_for_what_is_made_again_behind_its_inputs(evaluation):
    saliency = evaluation.inputs["pruner"].inputs["saliency"]
    assert saliency.digest not in {artefact.digest for artefact in evaluation.inputs.values()}
    named, rebuilt = job_inputs(evaluation, {saliency.digest: "results/saliency/file"}, path_of)
    assert rebuilt == {f"rebuilt_{saliency.digest}": str(saliency.path)}
    assert named == job_inputs(evaluation, {}, path_of).named


def test_a_damaged_artefact_is_made_again_because_of_a_note_that_is_newer(evaluation):
    model = evaluation.inputs["model"]
    finish(model)
    os.utime(model.path, (1, 1))
    damage = {model.digest: "results/model/weights"}
    _, rebuilt = job_inputs(model, damage, path_of)
    note = Path(rebuilt["damage"])
    assert json.loads(note.read_text()) == {"damaged": "results/model/weights"}
    assert note.stat().st_mtime_ns > model.path.stat().st_mtime_ns
    before = note.stat().st_mtime_ns
    assert job_inputs(model, damage, path_of).rebuilt == rebuilt
    assert note.stat().st_mtime_ns == before


def due(wanted, damage=()):
    return {job.stage.rule for job in due_jobs([wanted], dict.fromkeys(damage, "a file")).values()}


def test_everything_behind_a_missing_result_is_due_and_nothing_behind_a_finished_one(evaluation):
    assert due(evaluation) == {job.stage.rule for job in evaluation.with_inputs().values()}
    finish(evaluation.inputs["pruner"])
    assert "train_pruner" not in due(evaluation)
    assert "saliency" not in due(evaluation)
    assert "prepare_model" in due(evaluation)
    finish(evaluation)
    assert due(evaluation) == set()


def test_a_damaged_artefact_is_due_though_nobody_needs_it_now(evaluation):
    finish(*evaluation.with_inputs().values())
    assert due(evaluation, [evaluation.inputs["pruner"].digest]) == {"train_pruner"}


def test_a_series_is_due_while_it_lacks_an_item(evaluation):
    finish(*evaluation.with_inputs().values())
    assert due(evaluation) == set()
    more = replace(evaluation, count=evaluation.count + 1)
    assert more.digest == evaluation.digest
    assert due(more) == {"evaluate_sdtp"}
    assert finished_jobs([more], {}) == frozenset()
    assert finished_jobs([evaluation], {}) == {evaluation.digest}


def test_a_job_waits_for_the_files_that_make_its_inputs(evaluation):
    receipt = {evaluation.inputs["pruner"].digest: "results/panel/p.train_pruner.done"}
    named, _ = job_inputs(evaluation, {}, lambda job: receipt.get(job.digest, str(job.path)))
    assert named["pruner"] == "results/panel/p.train_pruner.done"
    assert named["model"] == str(evaluation.inputs["model"].path)


def test_what_is_there_and_whole_is_finished(evaluation):
    model, pruner = evaluation.inputs["model"], evaluation.inputs["pruner"]
    finish(model, pruner)
    jobs = list(evaluation.with_inputs().values())
    assert finished_jobs(jobs, {model.digest: "results/model/weights"}) == {pruner.digest}


def test_times_in_the_future_become_now_for_what_is_read_and_in_the_order_of_rendering(evaluation):
    model = evaluation.inputs["model"]
    finish(model, evaluation)
    summary, section = Path("results/summary.json"), Path("paper/ablation.tex")
    for path in (summary, section):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    tomorrow = time.time() + 86_400
    for path in (model.path, evaluation.path, summary, section):
        os.utime(path, (tomorrow, tomorrow))
    jobs = list(evaluation.with_inputs().values())
    reset_future_times(jobs, {evaluation.digest}, ROOT)
    times = [path.stat().st_mtime_ns for path in (model.path, evaluation.path, summary, section)]
    assert times == sorted(times)
    assert times[-1] <= time.time_ns()
    before = model.path.stat().st_mtime_ns
    reset_future_times(jobs, {evaluation.digest}, ROOT)
    assert model.path.stat().st_mtime_ns == before
