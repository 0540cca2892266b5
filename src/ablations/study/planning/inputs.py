"""What a job waits for: files that Snakemake must see before it runs, and jobs that must run before."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ablations.study.planning.damage import note_damage
from ablations.study.planning.jobs import Job


class Inputs(NamedTuple):
    """Input files of a job, by name.

    Attributes:
        named: Files whose names say what they hold; their times say nothing.
        rebuilt: Files that are newer than the result when the job must run again.
    """

    named: dict[str, str]
    rebuilt: dict[str, str]


def finished_jobs(jobs: Iterable[Job], damage: Collection[str]) -> frozenset[str]:
    """Digests of the jobs whose results are there and whole.

    No rule makes such a result: for Snakemake it is a file like any other, which nothing can make stale,
    force, or remove after a failure.

    Args:
        jobs: Planned jobs.
        damage: Digests of the jobs whose artefacts are damaged.
    """
    return frozenset(job.digest for job in jobs if job.path.exists() and job.digest not in damage)


def job_inputs(job: Job, damage: dict[str, str]) -> Inputs:
    """Spec and input artefacts of a job.

    Where a finished job is asked about, as for Snakemake's report, it needs its inputs no more.

    Args:
        job: A planned job.
        damage: By digest of the job that makes it, the first damaged file of an artefact.
    """
    named, rebuilt = {"spec": str(job.spec_path)}, {}
    if job.digest in damage:
        rebuilt["damage"] = str(note_damage(job, damage[job.digest]))
    elif job.path.exists():
        return Inputs(named, rebuilt)
    for name, artefact in job.inputs.items():
        kind = rebuilt if artefact.digest in damage else named
        kind[name] = str(artefact.path)
    # Behind a job that runs, Snakemake looks for no other reason to run, and follows no ancient file: what is
    # built again must be an input of everything that is missing, by whatever way it goes in.
    direct = {artefact.digest for artefact in job.inputs.values()}
    for digest, artefact in job.with_inputs().items():
        if digest in damage and digest not in {job.digest, *direct}:
            rebuilt[f"rebuilt_{digest}"] = str(artefact.path)
    return Inputs(named, rebuilt)


def due_jobs(wanted: Iterable[Job], damage: Mapping[str, str]) -> dict[str, Job]:
    """The jobs that a run would start, by digest, needed ones first.

    Args:
        wanted: Jobs whose results are asked for.
        damage: By digest of the job that makes it, the first damaged file of an artefact.
    """
    due: dict[str, Job] = {}
    for job in wanted:
        # What is built again is built again for whoever comes next, not only for what is missing.
        behind = [each for digest, each in job.with_inputs().items() if digest in damage]
        for each in (*behind, job):
            _add_due(each, damage, due)
    return due


def _add_due(job: Job, damage: Mapping[str, str], due: dict[str, Job]) -> None:
    if job.digest in due or (job.path.exists() and job.digest not in damage):
        return
    for artefact in job.inputs.values():
        _add_due(artefact, damage, due)
    due[job.digest] = job
