"""Checks of a Slurm cluster before a run submits its first job.

A run ends where the site would refuse its jobs, or could not tell what became of them. Without these checks
each job would fail on its own, or wait for ever.
"""

import asyncio
import getpass
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.core.errors import UserError

PATIENCE_SECONDS = 10
"""Longest wait for the answer of a Slurm command."""

LONGEST_POLL_SECONDS, ANSWER_SECONDS = 180, 10
"""The executor polls its jobs at growing intervals, up to the first; a poll takes up to the second."""

REMEMBERED_POLLS = 3
"""First polling intervals for which Slurm must remember ended jobs, or the executor does not use `squeue`."""

RETRY_SECONDS = 5
"""Pause between questions to a Slurm that does not answer."""

PROBES = {
    "sacct": ("sacct", "--allocations", "--noheader", "--starttime=now"),
    "squeue": ("squeue", "--noheader", "--name=none"),
}
"""Cheap command that tells whether each source of job states answers."""

SITE = "the lines marked SITE in profiles/slurm/config.yaml"
"""Where a user sets partition and account, for errors."""


@dataclass(frozen=True)
class Partition:
    """A partition: its longest time limit in minutes (None: no limit), and the CPUs of one of its nodes."""

    minutes: int | None
    node_cpus: int


@dataclass(frozen=True)
class Submission:
    """A job as it is submitted.

    Attributes:
        rule: Name of its rule.
        resources: Its resources by name, as Snakemake evaluates them.
        threads: CPUs of each of its tasks.
    """

    rule: str
    resources: Mapping[str, object]
    threads: int

    @property
    def partitions(self) -> list[str]:
        """Names of the partitions that it may run in; empty for Slurm's default."""
        return [name for name in str(self.resources.get("slurm_partition") or "").split(",") if name]

    @property
    def account(self) -> str:
        """Account that it is submitted to: the first one listed, as in the executor; empty for none."""
        return next(iter(re.split(r"[,\s]+", str(self.resources.get("slurm_account") or "").strip())))

    @property
    def elsewhere(self) -> bool:
        """Whether it runs on another cluster than this one."""
        return any(self.resources.get(name) for name in ("cluster", "clusters", "slurm_cluster"))


class Slurm:
    """The partitions of a cluster.

    Raises:
        UserError: Slurm does not answer.
    """

    def __init__(self) -> None:
        answer = _ask("scontrol", "show", "partition", "--all", "--oneliner")
        if answer.failed:
            raise UserError(
                f"Slurm does not answer (scontrol: {answer.reason}); give the command on a node where `sinfo`"
                " lists partitions, or without --profile slurm"
            )
        self._partitions, self._default = {}, ""
        for line in answer.text.splitlines():
            fields = dict(part.partition("=")[::2] for part in line.split())
            name = fields.get("PartitionName", "")
            if name:
                cpus = int(fields.get("TotalCPUs", 1)) // max(1, int(fields.get("TotalNodes", 1)))
                self._partitions[name] = Partition(_minutes(fields.get("MaxTime", "")), max(1, cpus))
            if fields.get("Default") == "YES":
                self._default = name

    def longest(self, submission: Submission) -> int | None:
        """Longest time limit in minutes of the partitions that a job may run in; None without a limit.

        Raises:
            UserError: a partition does not exist, or none is named and Slurm has no default.
        """
        limits = [partition.minutes for partition in self._partitions_of(submission)]
        return None if None in limits else max(limit for limit in limits if limit is not None)

    def require_acceptable(self, submission: Submission) -> None:
        """Check that a job gets the time and memory that were computed for it.

        Raises:
            UserError: the job asks for more time than its partition allows, and would wait for ever; or a
                memory per CPU is set, which overrides the memory that the job needs and is less.
        """
        minutes, longest = submission.resources.get("runtime"), self.longest(submission)
        if isinstance(minutes, int) and longest is not None and minutes > longest:
            raise UserError(
                f"runtime: {submission.rule} asks for {minutes} minutes and its partition allows {longest};"
                " it would wait for ever: ask for less where it is set (--set-resources, the profile)"
            )
        memory, per_cpu = submission.resources.get("mem_mb"), submission.resources.get("mem_mb_per_cpu")
        if not isinstance(memory, int) or not isinstance(per_cpu, int) or not per_cpu:
            return
        tasks, task_cpus = submission.resources.get("tasks"), submission.resources.get("cpus_per_task")
        cpus = tasks if isinstance(tasks, int) else 1
        cpus *= task_cpus if isinstance(task_cpus, int) else submission.threads
        if "--exclusive" in str(submission.resources.get("slurm_extra", "")):
            # An exclusive job has the memory of all CPUs of its node.
            cpus = max(cpus, *(partition.node_cpus for partition in self._partitions_of(submission)))
        if per_cpu * cpus < memory:
            raise UserError(
                f"mem_mb_per_cpu: {submission.rule} needs {memory} MiB and would get {cpus} x {per_cpu} MiB;"
                " delete it where it is set (--default-resources, the profile): jobs ask for what they need"
            )

    def _partitions_of(self, submission: Submission) -> list[Partition]:
        names = submission.partitions or [self._default]
        for name in names:
            if not name:
                raise UserError(
                    "slurm_partition: none is given, and this Slurm has no default; give one of"
                    f" {', '.join(self._partitions)} ({SITE})"
                )
            if name not in self._partitions:
                raise UserError(
                    f"slurm_partition: this Slurm has no partition '{name}'; give one of"
                    f" {', '.join(self._partitions)} ({SITE})"
                )
        return [self._partitions[name] for name in names]


def require_partition(submissions: Iterable[Submission], command: Sequence[str]) -> None:
    """Check that the command line does not drop the profile's partition.

    Args:
        submissions: Jobs.
        command: Command line.

    Raises:
        UserError: `--default-resources`, which replaces those of the profile, names no partition.
    """
    if any(word.startswith("--default-res") for word in command):
        for submission in submissions:
            if not submission.partitions:
                raise UserError(
                    "--default-resources: it takes the place of all that the profile has there, partition and"
                    " account too; add slurm_partition=... (slurm_account=...) to it, or use --set-resources"
                )


def require_account(name: str) -> None:
    """Check an account once for all jobs, in the way the executor checks it for each.

    Raises:
        UserError: the executor would refuse the account.
    """
    user = getpass.getuser()
    answer = _ask("sacctmgr", "--noheader", "--associations", "list", "user", user, "format=account%256")
    if answer.failed or not answer.text.strip():
        answer = _ask("sshare", "-U", "--noheader", "--format=Account%256")
    if answer.failed:
        raise UserError(
            f"slurm_account: nobody here keeps accounts (sshare: {answer.reason}); delete it ({SITE})"
        )
    accounts = sorted({line.strip() for line in answer.text.splitlines() if line.strip()})
    if accounts and name.lower() not in map(str.lower, accounts):
        raise UserError(
            f"slurm_account: '{name}' is none of your accounts; give one of {', '.join(accounts)} ({SITE})"
        )


def status_command(configured: str, first_poll: int) -> str:
    """Command with which the executor polls the states of jobs: `squeue` where there is no accounting.

    Args:
        configured: Command of the executor's settings, `sacct` or `squeue`.
        first_poll: Seconds before the executor polls for the first time.

    Raises:
        UserError: there is no accounting, and Slurm forgets ended jobs before `squeue` could tell of them.
    """
    accounting = _ask(*PROBES["sacct"])
    if not accounting.failed:
        return configured
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", _ask("scontrol", "show", "config").text, re.MULTILINE)
    remembered = int(age[1]) if age else 0
    needed = max(REMEMBERED_POLLS * first_poll, LONGEST_POLL_SECONDS + ANSWER_SECONDS)
    if remembered < needed:
        raise UserError(
            f"Slurm has no accounting here (sacct: {accounting.reason}) and forgets ended jobs after"
            f" {remembered} s, so that nobody would learn what became of them; have MinJobAge={needed} set in"
            " slurm.conf, or run the study as one job: sbatch --exclusive --wrap 'snakemake --cores all'"
        )
    return "squeue"


def wait_for_answers(executor: type[Any], command: str) -> None:
    """Have an executor poll its jobs while Slurm answers, and keep those of which a poll says nothing.

    The executor for Slurm (2.8.0) forgets its jobs when its polls fail, as they do while the controller
    restarts, and then waits for ever. A controller may go away between the question here and the poll.

    Args:
        executor: Class of the executor; has the methods `check_active_jobs`, `report_job_success` and
            `report_job_error` of all remote executors.
        command: Command with which it polls, `sacct` or `squeue`.
    """
    check = executor.check_active_jobs
    unseen: dict[str, Any] = {}

    def seen(report: Callable[..., None]) -> Callable[..., None]:
        def reported(self: Any, job: Any, *args: Any, **named: Any) -> None:
            unseen.pop(job.external_jobid, None)
            report(self, job, *args, **named)

        return reported

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        reported = False
        while active_jobs and self.wait:
            answer = await asyncio.to_thread(_ask, *PROBES[command])
            if not answer.failed:
                break
            if not reported:
                print(f"Slurm does not answer ({command}: {answer.reason}); asking again", file=sys.stderr)
            reported = True
            await asyncio.sleep(RETRY_SECONDS)
        unseen.update((job.external_jobid, job) for job in active_jobs)
        async for job in check(self, active_jobs):
            unseen.pop(job.external_jobid, None)
            yield job
        for job in list(unseen.values()):
            yield job
        unseen.clear()

    executor.check_active_jobs = check_active_jobs
    executor.report_job_success = seen(executor.report_job_success)
    executor.report_job_error = seen(executor.report_job_error)


def prepare_submission(workflow: Any, longest_minutes: dict[str, int]) -> None:
    """Before the first job goes to Slurm: end what the site would refuse, and fit the others to the site.

    Args:
        workflow: The run, as Snakemake's hooks have it.
        longest_minutes: Gets the longest time limit of the partition that a job runs in, by the digest of the
            job or panel.
    """
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if workflow.executor_plugin.name != "slurm" or not jobs:
        return
    settings = workflow.executor_settings
    asked = settings.status_command
    try:
        slurm = Slurm()
        require_partition(map(_submission_of, jobs), sys.argv)
        for job in jobs:
            submission = _submission_of(job)
            if submission.elsewhere:
                continue
            longest = slurm.longest(submission)
            if longest is not None:
                names = job.wildcards_dict
                longest_minutes[names.get("panel") or names.get("digest")] = longest
                if job.resources.get("runtime", 0) > longest:
                    # Setting it makes Snakemake ask for the resources once more, now with the limit known.
                    job.attempt = job.attempt
            slurm.require_acceptable(_submission_of(job))
        for account in {_submission_of(job).account for job in jobs} - {""}:
            require_account(account)
        settings.status_command = status_command(asked, settings.init_seconds_before_status_checks)
    except UserError as error:
        sys.exit(f"error: {error}")
    wait_for_answers(workflow.executor_plugin.executor, settings.status_command)
    if settings.status_command != asked:
        print("This Slurm has no accounting: squeue says what became of jobs.")
    # Snakemake shows a failed job's log, also that of an earlier run where sbatch refuses the job.
    for log in (Path(log) for job in jobs for log in job.log):
        log.unlink(missing_ok=True)


def _submission_of(job: Any) -> Submission:
    """A job as it will be submitted to Slurm."""
    return Submission(job.rule.name, job.resources, job.threads)


@dataclass(frozen=True)
class _Answer:
    """Output of a command, and the reason why it failed; empty where it succeeded."""

    text: str
    reason: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason)


def _ask(*command: str) -> _Answer:
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_SECONDS, check=False
        )
    except FileNotFoundError:
        return _Answer("", "not installed")
    except subprocess.TimeoutExpired:
        return _Answer("", f"no answer in {PATIENCE_SECONDS} s")
    except OSError as error:
        return _Answer("", str(error.strerror))
    code, message = completed.returncode, " ".join((completed.stderr or completed.stdout).split())
    return _Answer(completed.stdout, (message or f"exit code {code}") if code else "")


def _minutes(limit: str) -> int | None:
    """Minutes of a time limit like 1-12:30:00; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if not match:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes
