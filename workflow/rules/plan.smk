# Shared by all rules. It turns the configuration into a plan, and answers what a digest needs.

import functools
import gc
import json
import os
import shlex
import sys
from pathlib import Path

# Excludes all that Snakemake has loaded, which lives to the end, from garbage collection. Without it a dry run
# of 1,000 experiments takes 1.2 times as long (measured with tests/workflow/scale.py).
gc.freeze()

# Jobs run this checkout's source (what their digests describe) with this interpreter, unless a rule's
# conda environment, activated later, brings its own.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
SOURCE = str(ROOT / "src")
# Snakemake looks for modules in the checkout's root too, where a user may have a `token.py` or `random.py`.
sys.path[:] = [SOURCE, *(folder for folder in sys.path if folder != str(ROOT))]
os.environ.update(PYTHONSAFEPATH="1")
for variable, folder in (
    ("PYTHONPATH", SOURCE),
    ("PATH", str(Path(sys.executable).parent)),
):
    os.environ[variable] = os.pathsep.join(
        filter(None, [folder, os.environ.get(variable)])
    )

try:
    import ablations.study.planning.plan
except ImportError as error:
    sys.exit(
        f"error: {error}: this snakemake ({sys.executable}) is another environment's; use .venv/bin/snakemake of"
        f" {ROOT}, which `make install` makes, or install there (pip install -c constraints.txt -e .)"
    )

from ablations.core.errors import UserError, print_any_text
from ablations.study.config.reading import require_distinct_keys
from ablations.study.endings import report_missing, say_where
from ablations.study.estimate.requests import Requests
from ablations.study.invocation import (
    asks_for_report,
    forces_jobs,
    named_results,
    require_folders,
    require_free_ids,
    require_planned,
    require_unmoved_paths,
    require_writable,
    require_writable_metadata,
)
from ablations.study.planning import stages
from ablations.study.planning.freshness import (
    find_damage,
    finished_jobs,
    job_inputs,
    reset_future_times,
)
from ablations.study.planning.jobs import DIGEST_LENGTH, Job
from ablations.study.planning.plan import Plan
from ablations.study.planning.stamps import write_stamps
from ablations.study.slurm import prepare_submission
from ablations.study.timings import PastTimes

# A job that a scheduler runs reads this file again: it is told the configuration that it was planned with, and
# leaves specs, stamps and artefacts to the process that planned it.
PLANNED_WITH = "ABLATIONS_CONFIG"
if not workflow.is_main_process and PLANNED_WITH in os.environ:
    config = json.loads(Path(os.environ[PLANNED_WITH]).read_text(encoding="utf-8"))

print_any_text()
damage, finished = {}, frozenset()
try:
    if workflow.is_main_process:
        require_folders()
        require_writable_metadata()
        require_unmoved_paths(workflow.modifier.modify_path)
        for file in workflow.configfiles:
            require_distinct_keys(Path(file))
    plan = Plan(config, ROOT)
    models = ROOT / "workflow/plan/models.yaml"
    requests = Requests(plan.config.resources, models)
    if workflow.is_main_process:
        # What is only planned writes no results.
        if not workflow.output_settings.dryrun:
            require_writable(plan.jobs.values())
        os.environ[PLANNED_WITH] = str(plan.write_config().absolute())
        plan.write_specs()
        write_stamps(plan, ROOT)
        damage = find_damage(plan.jobs.values())
        plan.sources.hashes.save()
        if not asks_for_report(sys.argv):
            finished = finished_jobs(plan.jobs.values(), damage)
        if not workflow.output_settings.dryrun:
            reset_future_times(plan.jobs.values(), finished, ROOT)
        if finished and forces_jobs(sys.argv):
            print(
                "note: a finished result is never measured again, whatever is forced;"
                " `python -m ablations.study forget ID` deletes one",
                file=sys.stderr,
            )
    else:
        require_planned(plan, sys.argv)
except UserError as error:
    sys.exit(f"error: {' '.join(str(error).split())}")
except OSError as error:
    sys.exit(f"error: {error.filename or 'results'}: {error.strerror}")


# Name of a panel.
DIGEST = f"[0-9a-f]{{{DIGEST_LENGTH}}}"

# Longest time limit of the partition that Slurm runs a job in, by the digest of the job or panel.
longest_minutes = {}


def shipped(path):
    """A file of this checkout, as jobs find it in the working directory."""
    return path if Path.cwd() == ROOT.resolve() else str(ROOT / path)


def due(stage, done=finished):
    """Pattern of the digests of a stage's jobs that a rule may make; what is done has no rule."""
    planned = dict.fromkeys(job.digest for job in plan.jobs_of(stage))
    names = [digest for digest in done if digest in planned]
    but = f"(?!{'|'.join(names)})" if names else ""
    return f"{but}(?:{'|'.join(planned)})"


@functools.cache
def panels():
    """The panels of this run by digest. Called by input functions alone: what a command line asks for is not known
    while this file is parsed. A job that a scheduler runs plans none."""
    if not workflow.is_main_process:
        return {}
    targets = getattr(workflow.dag_settings, "targets", None) or ()
    planned = plan.panels(plan.asked(targets), damage)
    for panel in planned:
        panel.write()
    return {panel.digest: panel for panel in planned}


@functools.cache
def panel_of(digest):
    """The panel of this name: one of this run, or the one that a scheduler's job is to do."""
    try:
        return panels().get(digest) or plan.panel(digest)
    except UserError as error:
        sys.exit(f"error: {error}")


@functools.cache
def receipts():
    """Receipt of the panel that does a job, by the job's digest."""
    return {
        job.digest: str(panel.receipt)
        for panel in panels().values()
        for job in panel.jobs
    }


def file_of(job):
    """The file that Snakemake waits for where it needs a job's result."""
    return (
        str(job.path) if job.stage.moves else receipts().get(job.digest, str(job.path))
    )


def receipt_of(wildcards):
    """Receipt of the panel that makes a result."""
    return [ancient(receipts()[wildcards.digest])] if receipts() else []


def made_by(stage):
    """Path at which a panel of a stage makes a result."""
    return lambda wildcards: str(stage.made(wildcards.digest))


def job_files(wildcards):
    """Spec and input artefacts of a job; where their names say what they hold, their times are ignored."""
    named, rebuilt = job_inputs(plan.jobs[wildcards.digest], damage, file_of)
    return {name: ancient(path) for name, path in named.items()} | rebuilt


def panel_files(wildcards):
    """A panel's file, and the input artefacts of all its jobs. A job that a scheduler runs looks for its panel's
    file alone: the process that planned it has seen to the others."""
    panel = panel_of(wildcards.panel)
    files = {"panel": ancient(str(panel.path))}
    if wildcards.panel not in panels():
        return files
    named, rebuilt = {}, {}
    for job in panel.jobs:
        inputs = job_inputs(job, damage, file_of)
        named |= dict.fromkeys(inputs.named.values())
        rebuilt |= dict.fromkeys(inputs.rebuilt.values())
    return files | {"inputs": [*map(ancient, named)], "rebuilt": [*rebuilt]}


def receipts_of(wildcards, input):
    """What tells a job which of its inputs a panel could not make, and why."""
    paths = dict.fromkeys(path for path in input if path.endswith(".done"))
    return f"--receipts {shlex.join(paths)}" if paths else ""


past_times = functools.cache(PastTimes)


def panel_content(wildcards):
    """What a panel does, for the message, and how long it takes where the like was done here before."""
    panel = panel_of(wildcards.panel)
    seconds = past_times().panel(panel)
    return panel.what + (
        f", about {max(1, round(seconds / 60))} min" if seconds else ""
    )


def work_of(wildcards):
    """The panel or the job that a rule runs."""
    if digest := wildcards.get("panel"):
        return panel_of(digest)
    return plan.jobs[wildcards.digest]


def a_job_of(wildcards):
    """A job that computes like all of its panel."""
    work = work_of(wildcards)
    return work if isinstance(work, Job) else work.jobs[0]


def job_threads(wildcards):
    """CPU threads that a job's spec asks for."""
    return plan.threads(a_job_of(wildcards))


def job_gpus(wildcards):
    """GPUs of a job: one for each of its processes, where jobs use GPUs at all."""
    return plan.config.resources.gpu * job_ranks(wildcards)


def job_memory(wildcards, attempt):
    """Memory of a job, MiB; a retry asks for more."""
    return attempt * requests.memory_mib(work_of(wildcards), job_ranks(wildcards))


def job_minutes(wildcards, attempt):
    """Time limit of a job, minutes; a retry asks for more."""
    work = work_of(wildcards)
    asked = attempt * requests.minutes(work)
    longest = longest_minutes.get(work.digest, asked)
    return min(plan.config.resources.runtime, longest, asked)


def job_ranks(wildcards):
    """Processes of a job that a launcher starts."""
    return plan.ranks(a_job_of(wildcards))


def rank_threads(wildcards):
    """CPU threads of each of them."""
    return job_threads(wildcards) // job_ranks(wildcards)


def job_launcher(wildcards, resources):
    """What starts the processes of a job; nothing where it starts them itself."""
    if not resources.get("mpi"):
        return ""
    return f"{resources.mpi} --ntasks={resources.tasks} --cpus-per-task={resources.cpus_per_task}"


def job_label(wildcards):
    """Id of the experiment that a record belongs to."""
    return plan.label(wildcards.digest)


# What stages take, by the names that planning/stages.py has for it. A GPU is never shared; Slurm keeps others
# off a CPU with --exclusive alone.
cpu_resources = {"gpu": 0, "mem_mb": job_memory, "runtime": job_minutes}
model_resources = {**cpu_resources, "gpu": job_gpus}
timer_resources = {**model_resources, "timer": 1}
if "timer" not in workflow.global_resources:
    workflow.register_resource("timer", 1)
if plan.config.resources.exclusive and not plan.config.resources.gpu:
    timer_resources["slurm_extra"] = "--exclusive"
resources_of = {
    "cpu": cpu_resources,
    "model": model_resources,
    "timer": timer_resources,
    "ranks": {
        **timer_resources,
        "tasks": job_ranks,
        "tasks_per_gpu": 1,
        "cpus_per_task": rank_threads,
    },
}


def result_of(stage):
    """What a stage's jobs make; the record of an experiment is in the workflow's report."""
    if stage.result != stages.RECORD:
        return stage.result
    return report(
        stage.result,
        caption="../report/record.rst",
        category="Records",
        subcategory=lambda wildcards: plan.method(wildcards.digest),
        labels=lambda wildcards: {
            "experiment": plan.label(wildcards.digest),
            "record": wildcards.digest,
        },
    )


def shown(path):
    """A table or figure in the workflow's report."""
    kind, name = Path(path).parent.name, Path(path).stem
    return report(
        path,
        caption=f"../report/{kind}/{name}.rst",
        category=kind.capitalize(),
        labels={"name": name.replace("_", " ")},
    )


def refuse_taken_names(rules):
    """Experiments are targets by their ids; one that is called like a rule would be two things."""
    try:
        require_free_ids(plan.rows, rules.has)
    except UserError as error:
        sys.exit(f"error: {error}")


def wake_for_jobs_alone(workflow):
    """For its own limit of 100 jobs a second, Snakemake (9.27) wakes once a second for every job that ended,
    which takes a tenth of a core beside the last measurements of a study. A limit that the user gives stays.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
