"""What docs/cluster.md says, on a real Slurm.

Tests of jobs that take the whole node stand first; from there on, jobs share it with those of `background`.
"""

import json
import shutil
import subprocess
import time
from itertools import combinations
from pathlib import Path

import psutil
import pytest

from ablations.core.errors import UserError
from ablations.study.slurm import Slurm, Submission, require_account, status_command
from tests.slurm.cluster import CONFIGURATION, CPUS, Job, tries
from tests.slurm.conftest import EVALUATE, SHARED
from tests.workflow.conftest import TINY

pytestmark = pytest.mark.full

UNTIMED = {"prepare_model": 1, "prepare_text": 1, "saliency": 1, "train_pruner": 1}
# Panels: one of two experiments each, and one of a pipeline.
TIMED = {"decode": 1, "evaluate_sdtp": 1, "evaluate_pipeline": 1}
SPREAD = ["--config", 'panel={"experiments": 1}']

beside_the_background = pytest.mark.usefixtures("background")


def overlap(one: Job, other: Job) -> bool:
    return one.started < other.ended and other.started < one.ended


def test_jobs_ran_under_slurm_with_what_they_asked_for(measured):
    jobs = measured.jobs
    assert {rule: sum(job.rule == rule for job in jobs) for rule in {job.rule for job in jobs}} == (
        UNTIMED | TIMED
    )
    for job in jobs:
        ranks = 2 if job.rule == "evaluate_pipeline" else 1
        assert (job.state, job.partition, job.tasks, job.tres) == ("COMPLETED", "main", ranks, "")
        assert 20 <= job.minutes <= 60
        assert job.exclusive == (job.rule in TIMED)
        assert job.cpus == (CPUS if job.exclusive else 1)
    memory = {job.rule: job.memory for job in jobs}
    # The tiny model holds a few MiB, gradients through windows of 328 tokens some more.
    assert all(2048 < memory[rule] < 2100 for rule in (EVALUATE, "decode")), memory
    assert all(2048 < memory[rule] < 2300 for rule in ("train_pruner", "saliency")), memory
    assert 2 * 2048 < memory["evaluate_pipeline"] < 2 * 2100
    assert memory["prepare_text"] == 2048
    assert (measured.study.path / "paper/ablation.tex").is_file()


def test_timed_jobs_ran_alone(measured):
    for one, other in combinations(measured.jobs, 2):
        if TIMED.keys() & {one.rule, other.rule}:
            assert not overlap(one, other), (one, other)


def test_ranks_are_tasks_of_the_job(measured):
    record = json.loads(measured.study.record("GB").read_text())
    assert record["outcome"]["status"] == "ok"
    assert len(record["samples"][0]["ranks"]) == 2


def test_untimed_jobs_run_side_by_side(study, cluster):
    artefacts = [next((study.path / f"results/{kind}").glob("*/manifest.json")) for kind in ("model", "text")]
    for artefact in artefacts:
        shutil.rmtree(artefact.parent)
    done = study.submit(*(str(artefact.relative_to(study.path)) for artefact in artefacts))
    assert done.code == 0, done.output
    one, other = cluster.jobs(study.path)
    assert overlap(one, other)


def test_panels_are_spread_over_the_node_one_experiment_each(study, cluster):
    records = {name: study.record(name) for name in ("baseline", "A7", "F1", "F4")}
    blocks = {name: len(study.series(name)) for name in records}
    kept = study.forget(*records)
    done = study.submit(*records, flags=[*SHARED, 'panel={"experiments": 1}'])
    assert done.code == 0, done.output
    jobs = cluster.jobs(study.path)
    assert sorted(job.rule for job in jobs) == ["decode", "decode", EVALUATE, EVALUATE]
    done = study.measured_again(0, jobs)
    assert len(done[EVALUATE]) == blocks["baseline"] + blocks["A7"]
    assert len(done["decode"]) == blocks["F1"] + blocks["F4"]
    assert all(path.exists() for path in records.values())
    assert kept.items() <= study.records().items()


def test_a_preempted_job_is_requeued_and_awaited(study, cluster):
    study.forget("A7")
    head = study.start("A7")
    job = cluster.wait("RUNNING", EVALUATE, study.path)
    command = ["sbatch", "--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null"]
    subprocess.run([*command, "--wrap=sleep 3"], cwd=study.path, check=True, capture_output=True)
    done = head.finish()
    assert done.code == 0, done.output
    assert study.record("A7").exists()
    (found,) = (each for each in cluster.jobs(study.path) if each.id == job.id)
    assert (found.state, found.restarts) == ("COMPLETED", 1)


def test_a_controller_that_is_away_for_a_while_is_waited_for(study, cluster):
    study.forget("A7")
    logs = study.path / "logs" / EVALUATE
    shutil.rmtree(logs)
    head = study.start("A7")
    for _ in tries(120):
        if any(logs.glob("*.log")):
            break
    with cluster.without_controller():
        head.wait_for("Slurm does not answer (squeue: ")
    done = head.finish()
    assert done.code == 0, done.output
    assert study.record("A7").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--set-resources", f"{EVALUATE}:slurm_partition=nowhere"],
            "slurm_partition: this Slurm has no partition 'nowhere'; give one of main, short, urgent (",
        ),
        (["--default-resources", "mem_mb=1000"], "--default-resources: it takes the place of all that"),
        (
            ["--default-resources", "slurm_partition=main", "mem_mb_per_cpu=100"],
            f"mem_mb_per_cpu: {EVALUATE} needs 2051 MiB and would get {CPUS} x 100 MiB; delete it where",
        ),
        (
            ["--set-resources", f"{EVALUATE}:runtime=61"],
            f"runtime: {EVALUATE} asks for 61 minutes and its partition allows 60; it would wait for ever",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_one_line_before_anything_is_submitted(
    unmeasured, cluster, flags, says
):
    began = time.monotonic()
    done = unmeasured.submit("A7", flags=[*flags, "--quiet", "all"])
    assert time.monotonic() - began < 30
    assert done.code != 0
    (line,) = [line for line in done.output.splitlines() if not line.startswith("Using profiles")]
    assert line.startswith(f"error: {says}")
    assert not cluster.jobs(unmeasured.path)


def test_a_slurm_that_keeps_no_accounts_is_asked_with_squeue(cluster, monkeypatch, tmp_path):
    assert status_command("sacct", 40) == "squeue"
    require_account("whatever")
    # It remembers ended jobs for an hour.
    with pytest.raises(UserError, match=r"no accounting .* after 3600 s, .* MinJobAge=3603 set"):
        status_command("sacct", 1201)
    # An accounting database that is down is none.
    text = (CONFIGURATION / "slurm.conf").read_text()
    for name in ("gres.conf", "cgroup.conf"):
        shutil.copy(CONFIGURATION / name, tmp_path)
    edited = tmp_path / "slurm.conf"
    edited.write_text(text.replace("accounting_storage/none", "accounting_storage/slurmdbd"))
    monkeypatch.setenv("SLURM_CONF", str(edited))
    assert status_command("sacct", 40) == "squeue"


def test_limits_are_those_of_the_partitions_that_a_job_may_run_in(cluster):
    slurm = Slurm()
    limits = {"": 60, "main": 60, "short": 20, "short,urgent": 60}
    assert {name: slurm.longest(Submission("r", {"slurm_partition": name}, 1)) for name in limits} == limits


def test_a_configuration_edited_while_a_panel_waits_changes_nothing_for_it(study, cluster):
    study.forget("A7")
    record = study.record("A7")
    command = ["sbatch", "--partition=urgent", "--exclusive", "--time=5", "--output=/dev/null", "--parsable"]
    blocker = subprocess.run(
        [*command, "--wrap=sleep 300"], cwd=study.path, check=True, capture_output=True, text=True
    )
    head = study.start("A7")
    cluster.wait("PENDING", EVALUATE, study.path)
    study.replace("config.yaml", "schedule: {keep_ratio: 0.5}", "schedule: {keep_ratio: 0.6}")
    study.replace(TINY, "    documents: 6\n    prompt_tokens", "    documents: 7\n    prompt_tokens")
    assert study.planned("A7")
    subprocess.run(["scancel", blocker.stdout.strip()], check=True)
    done = head.finish()
    assert done.code == 0, done.output
    assert json.loads(record.read_text())["spec"]["keep_ratios"] == [0.5, 0.5, 0.5]
    assert len(json.loads(record.read_text())["samples"]) == 6
    assert not study.record("A7").exists()


def test_several_panels_of_one_group_are_one_job_and_run_one_after_the_other(study, cluster):
    study.forget("F1", "F4")
    flags = [*SPREAD, "--groups", "decode=decoding", "--group-components", "decoding=2"]
    done = study.submit("F1", "F4", flags=flags)
    assert done.code == 0, done.output
    (job,) = cluster.jobs(study.path)
    assert (job.state, job.exclusive) == ("COMPLETED", True)
    assert study.record("F1").exists()
    assert study.record("F4").exists()


@beside_the_background
def test_gpus_are_asked_for_as_the_plugin_understands_it(study, cluster):
    study.forget("A7", "GB")
    done = study.submit("A7", "GB", flags=SHARED)
    assert done.code == 0, done.output
    found = {job.rule: job for job in cluster.jobs(study.path)}
    assert {rule: job.tres for rule, job in found.items()} == {
        EVALUATE: "gres:gpu:1",
        "evaluate_pipeline": "gres:gpu:2",
    }
    # A GPU is nobody else's, so that its node can be shared.
    assert not any(job.exclusive for job in found.values())
    assert found["evaluate_pipeline"].tasks == 2


def kill_at_work(folder: Path, rule: str) -> str:
    """Kill the process of a panel of a rule while it works on one of its experiments; that one's id."""
    for _ in tries(120, pause=0.02):
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if (
                process.info["cwd"] != str(folder)
                or "--panel" not in words
                or "ablations.core.supervise" in words
            ):
                continue
            path = folder / words[words.index("--panel") + 1]
            panel = json.loads(path.read_text())
            if panel["rule"] != rule:
                continue
            process.suspend()
            labels = {entry["digest"]: entry["label"] for entry in panel["entries"]}
            (report,) = path.parent.glob(f".{path.stem}.*.tmp")
            at = [json.loads(line) for line in report.read_text().splitlines()]
            if at and at[-1].get("at"):
                process.kill()
                return labels[at[-1]["at"]]
            process.resume()
    raise AssertionError(f"no panel of {rule} was at work")


@beside_the_background
def test_a_cancelled_panel_leaves_the_others_and_is_all_that_a_rerun_does(study, cluster):
    kept = study.forget("A7", "F1")
    head = study.start("A7", "F1", flags=[*SHARED, "--retries", "0"])
    job = cluster.wait("RUNNING", EVALUATE, study.path)
    before = study.blocks()
    subprocess.run(["scancel", job.id], check=True)
    done = head.finish()
    assert done.code != 0
    assert f"SLURM-job '{job.id}' failed, SLURM status is: 'CANCELLED'" in done.output
    assert study.record("F1").exists()
    assert not study.record("A7").exists()
    finished, jobs = study.blocks(), len(cluster.jobs(study.path))
    assert before.items() <= finished.items()
    done = study.submit("A7", "F1", flags=SHARED)
    assert done.code == 0, done.output
    again = study.measured_again(jobs, cluster.jobs(study.path))
    assert set(again) == {EVALUATE}
    assert all(name.startswith("A7 ") for name in again[EVALUATE])
    assert finished.items() <= study.blocks().items()
    assert kept.items() <= study.records().items()


@beside_the_background
def test_what_a_cancelled_panel_has_finished_is_not_measured_again(study, cluster):
    small = [*SHARED, 'panel={"documents": 1}']
    study.forget("A7")
    head = study.start("A7", flags=[*small, "--retries", "0"])
    job = cluster.wait("RUNNING", EVALUATE, study.path)
    panel = json.loads((study.path / f"results/panel/{job.name}.json").read_text())
    planned = [span for entry in panel["entries"] for span in entry["spans"]]
    folders = [study.path / entry["out"] for entry in panel["entries"]]
    for _ in tries(120):
        if any(folder.exists() and any(folder.glob("[!.]*.json")) for folder in folders):
            break
    subprocess.run(["scancel", job.id], check=True)
    assert head.finish().code != 0
    finished, jobs = study.blocks(), len(cluster.jobs(study.path))
    there = sum(len([*folder.glob("[!.]*.json")]) for folder in folders if folder.exists())
    assert there
    done = study.submit("A7", flags=small)
    assert done.code == 0, done.output
    again = study.measured_again(jobs, cluster.jobs(study.path))
    assert len(again.get(EVALUATE, [])) == len(planned) - there
    assert finished.items() <= study.blocks().items()
    assert study.record("A7").exists()


@beside_the_background
def test_an_arm_killed_for_memory_is_tried_alone_within_its_panel_and_the_others_go_on(study, cluster):
    kept = study.forget("baseline", "A7")
    head = study.start("baseline", "A7", flags=[*SHARED, 'panel={"documents": 1}', "--retries", "0"])
    cluster.wait("RUNNING", EVALUATE, study.path)
    # The kernel ends the process that holds the memory, not the job.
    label = kill_at_work(study.path, EVALUATE)
    done = head.finish()
    assert done.code == 0, done.output
    (job,) = [job for job in cluster.jobs(study.path) if job.rule == EVALUATE]
    assert job.state == "COMPLETED"
    log = (study.path / f"logs/{EVALUATE}/{job.name}.log").read_text()
    assert f"{label} took its process down (signal SIGKILL); the others go on without it" in log
    assert f"trying {label} alone" in log
    assert study.record("baseline").exists()
    assert study.record("A7").exists()
    assert kept.items() <= study.records().items()


@beside_the_background
def test_retries_cover_a_cancelled_job(study, cluster):
    study.forget("A7")
    head = study.start("A7", flags=SHARED)
    job = cluster.wait("RUNNING", EVALUATE, study.path)
    subprocess.run(["scancel", job.id], check=True)
    done = head.finish()
    assert done.code == 0, done.output
    first, second = cluster.jobs(study.path)
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    # What ran out of time or memory needs more of it.
    assert (second.minutes, second.memory) == (2 * first.minutes, 2 * first.memory)


@beside_the_background
def test_a_killed_head_is_started_again_and_what_its_jobs_finished_counts(study, cluster):
    kept = study.forget("A7", "F1")
    head = study.start("A7", flags=SHARED)
    cluster.wait("RUNNING", EVALUATE, study.path)
    head.kill()
    refused = study.submit("A7", "F1", flags=SHARED)
    assert refused.code != 0
    assert "Directory cannot be locked" in refused.output
    cluster.wait("COMPLETED", EVALUATE, study.path)
    finished = study.blocks()
    assert study.submit(flags=["--unlock"]).code == 0
    done = study.submit("A7", "F1", flags=SHARED)
    assert done.code == 0, done.output
    assert [each.rule for each in cluster.jobs(study.path)] == [EVALUATE, "decode"]
    # The head joins records; it was away when the last block was written.
    assert study.record("A7").exists()
    assert finished.items() <= study.blocks().items()
    assert kept.items() <= study.records().items()


@beside_the_background
def test_what_sbatch_refuses_is_shown_without_the_log_of_an_earlier_run_and_the_others_finish(study):
    study.forget("A7", "F1")
    # Planned now, the panel of the run to come has the log of an earlier one.
    study.planned("A7")
    for panel in (study.path / "results/panel").glob("*.json"):
        (study.path / "logs" / EVALUATE / f"{panel.stem}.log").write_text("of an earlier run\n")
    flags = [*SHARED, "--retries", "0", "--set-resources", f"{EVALUATE}:mem_mb=20000"]
    done = study.submit("A7", "F1", flags=flags)
    assert done.code != 0
    assert "Memory specification can not be satisfied" in done.output
    assert "of an earlier run" not in done.output
    assert study.record("F1").exists()
    assert not study.record("A7").exists()


def test_the_command_as_documented_finishes_where_nobody_keeps_accounts(background, cluster):
    study = background.literal
    done = study.heads[0].finish()
    assert done.code == 0, done.output
    assert "This Slurm has no accounting: squeue says what became of jobs." in done.output
    assert study.record("A7").exists()
    assert [job.state for job in cluster.jobs(study.path)] == ["COMPLETED"]


def test_the_error_and_the_logs_of_a_failed_job_are_shown(background, cluster):
    study = background.damaged
    done = study.heads[0].finish()
    assert done.code != 0
    assert "its SHA-256 is not the one in manifest.json" in done.output
    (job,) = cluster.jobs(study.path)
    assert "its SHA-256" in (study.path / f"logs/{EVALUATE}/{job.name}.log").read_text()
    assert list(study.path.glob(f".snakemake/slurm_logs/rule_{EVALUATE}/*/{job.id}.log"))
    assert f"{job.id}.log" in done.output


def test_a_job_out_of_memory_is_ended_and_its_retry_gets_more(background, cluster):
    study = background.hungry
    done = study.heads[0].finish()
    assert done.code == 0, done.output
    first, second = cluster.jobs(study.path)
    assert first.state != "COMPLETED"
    assert (first.memory, second.memory, second.state) == (150, 1200, "COMPLETED")
    # What was computed is more than the partition allows.
    assert (first.partition, first.minutes, second.minutes) == ("short", 20, 20)


def test_a_hung_job_ends_at_its_time_limit(background, cluster):
    study = background.hung
    done = study.heads[0].finish()
    assert done.code != 0
    (job,) = cluster.jobs(study.path)
    assert job.state == "TIMEOUT"
    assert f"SLURM-job '{job.id}' failed, SLURM status is: 'TIMEOUT'" in done.output
    assert not study.record("A7").exists()
