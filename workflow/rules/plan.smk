# Shared by all rules. It turns the configuration into a plan, and answers what a digest needs.

import os
import subprocess
import sys
from pathlib import Path

# Jobs run this checkout's source (what their digests describe) with this interpreter, unless a rule's
# conda environment, activated later, brings its own.
SOURCE = str(Path(workflow.basedir, "src"))
sys.path.insert(0, SOURCE)
for variable, folder in (
    ("PYTHONPATH", SOURCE),
    ("PATH", str(Path(sys.executable).parent)),
):
    os.environ[variable] = os.pathsep.join(
        filter(None, [folder, os.environ.get(variable)])
    )

from ablations.study.errors import UserError
from ablations.study.planning import stages
from ablations.study.planning.plan import Plan
from ablations.study.planning.stamps import write_stamps

try:
    plan = Plan(config, Path(workflow.basedir))
    plan.write_specs()
    write_stamps(plan, Path(workflow.basedir))
except UserError as error:
    sys.exit(f"error: {' '.join(str(error).split())}")


def job_inputs(wildcards):
    """Spec and input artefacts of a job; their names say what they hold, so their times are ignored.

    A finished result needs its inputs no more: a lost checkpoint is rebuilt only for new experiments.
    """
    job = plan.jobs[wildcards.digest]
    needed = {} if job.path.exists() else job.inputs
    paths = {name: str(artefact.path) for name, artefact in needed.items()}
    return {
        name: ancient(path)
        for name, path in {"spec": str(job.spec_path), **paths}.items()
    }


def job_threads(wildcards):
    """CPU threads that a job's spec asks for."""
    return plan.threads(wildcards.digest)


def job_gpus(wildcards):
    """GPUs of a job: one for each of its processes, where jobs use GPUs at all."""
    return plan.config.resources.gpu * plan.ranks(wildcards.digest)


def job_memory(wildcards):
    """Memory of a job, MiB: each of its processes loads the model."""
    return plan.config.resources.mem_mb * plan.ranks(wildcards.digest)


def job_label(wildcards):
    """Id of the experiment that a record belongs to."""
    return plan.label(wildcards.digest)


model_resources = {
    "gpu": plan.config.resources.gpu,
    "mem_mb": plan.config.resources.mem_mb,
    "runtime": plan.config.resources.runtime,
}


def record(path, method):
    """The record of an experiment, in the workflow's report."""
    return report(
        path,
        caption="../report/record.rst",
        category="Records",
        subcategory=method,
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


def say_where():
    """After a run: where the results are, and which hypotheses held if the summary is of these records."""
    needed = [Path(stages.COLLECT_STAMP), *plan.records]
    measured = sum(path.exists() for path in plan.records)
    if not measured:
        return
    print(
        f"\n{measured} of {len(plan.records)} records of study '{plan.config.study}' are in results/record"
        " (`python -m ablations.study show` lists them)."
    )
    summary = Path(stages.SUMMARY)
    current = summary.exists() and all(
        path.exists() and path.stat().st_mtime <= summary.stat().st_mtime
        for path in needed
    )
    if not current or not Path(stages.SECTION).exists():
        print(f"`snakemake --cores 1 {stages.SECTION}` writes the section.")
        return
    print(
        f"The section is {stages.SECTION}, its tables and figures lie beside it.",
        flush=True,
    )
    # A process of its own: the run has succeeded, whatever becomes of its last words.
    command = [sys.executable, "-m", "ablations.paper.findings", "--summary", summary]
    subprocess.run(command, check=False)
