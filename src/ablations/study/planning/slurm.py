"""The Slurm that a run will submit its jobs to, asked before it does.

What a site refuses or cannot tell ends a run before its first job. Otherwise each job would fail on its own,
or wait for ever.
"""

import asyncio
import getpass
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.study.errors import UserError

PATIENCE_SECONDS = 10
"""Time in which a command of Slurm answers."""
# The executor asks after its jobs ever more seldom, at most this many seconds apart, and allows for itself.
LONGEST_PAUSE, ANSWERING = 180, 10
# It trusts `squeue` only where Slurm remembers ended jobs for so many of its first pauses.
PAUSES_REMEMBERED = 3
# Seconds between questions to a Slurm that does not answer.
ASKED_AGAIN = 5
# Cheap questions to whoever keeps the states of jobs.
STATES = {
    "sacct": ("sacct", "--allocations", "--noheader", "--starttime=now"),
    "squeue": ("squeue", "--noheader", "--name=none"),
}
SITE = "the lines marked SITE in profiles/slurm/config.yaml"


@dataclass(frozen=True)
class Partition:
    """A partition: its longest time limit in minutes, None without one, and the CPUs of one of its nodes."""

    minutes: int | None
    node_cpus: int


@dataclass(frozen=True)
class Request:
    """What a job is submitted with.

    Args:
        rule: Name of its rule.
        resources: Its resources by name, as Snakemake has evaluated them.
        threads: CPUs of each of its tasks.
    """

    rule: str
    resources: Mapping[str, object]
    threads: int

    @property
    def partitions(self) -> list[str]:
        """Names of the partitions that it may run in; none where Slurm's default is meant."""
        return [name for name in str(self.resources.get("slurm_partition") or "").split(",") if name]

    @property
    def account(self) -> str:
        """Account that it is submitted to: the first of those given, as the executor has it."""
        return next(iter(re.split(r"[,\s]+", str(self.resources.get("slurm_account") or "").strip())))

    @property
    def elsewhere(self) -> bool:
        """Whether another cluster than this one runs it."""
        return any(self.resources.get(name) for name in ("cluster", "clusters", "slurm_cluster"))


class Slurm:
    """The partitions of a cluster.

    Raises:
        UserError: no Slurm answers.
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

    def longest(self, request: Request) -> int | None:
        """Longest time limit in minutes of the partitions that a job may run in; None without one.

        Raises:
            UserError: one of them does not exist, or none is named and there is no default.
        """
        limits = [partition.minutes for partition in self._of(request)]
        return None if None in limits else max(limit for limit in limits if limit is not None)

    def require_acceptable(self, request: Request) -> None:
        """Check that a job gets the time and memory that were computed for it.

        Raises:
            UserError: it asks for more time than its partition allows, and would wait for ever; or a memory
                per CPU takes the place of the memory that it needs and is less.
        """
        minutes, longest = request.resources.get("runtime"), self.longest(request)
        if isinstance(minutes, int) and longest is not None and minutes > longest:
            raise UserError(
                f"runtime: {request.rule} asks for {minutes} minutes and its partition allows {longest};"
                " it would wait for ever: ask for less where it is set (--set-resources, the profile)"
            )
        memory, each = request.resources.get("mem_mb"), request.resources.get("mem_mb_per_cpu")
        if not isinstance(memory, int) or not isinstance(each, int) or not each:
            return
        tasks, cpus = request.resources.get("tasks"), request.resources.get("cpus_per_task")
        count = tasks if isinstance(tasks, int) else 1
        count *= cpus if isinstance(cpus, int) else request.threads
        if "--exclusive" in str(request.resources.get("slurm_extra", "")):
            # Such a job has the memory of all CPUs of its node.
            count = max(count, *(partition.node_cpus for partition in self._of(request)))
        if each * count < memory:
            raise UserError(
                f"mem_mb_per_cpu: {request.rule} needs {memory} MiB and would get {count} x {each} MiB;"
                " delete it where it is set (--default-resources, the profile): jobs ask for what they need"
            )

    def _of(self, request: Request) -> list[Partition]:
        names = request.partitions or [self._default]
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


def require_partition(requests: Iterable[Request], command: Sequence[str]) -> None:
    """Check that an option of the command line has not dropped what the profile says.

    Args:
        requests: Jobs.
        command: Command line.

    Raises:
        UserError: `--default-resources`, which replaces all of the profile's, names no partition.
    """
    if any(word.startswith("--default-res") for word in command):
        for request in requests:
            if not request.partitions:
                raise UserError(
                    "--default-resources: it takes the place of all that the profile has there, partition and"
                    " account too; add slurm_partition=... (slurm_account=...) to it, or use --set-resources"
                )


def require_account(name: str) -> None:
    """Check an account as the executor does, once for all jobs.

    Raises:
        UserError: the executor will refuse it.
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


def status_command(asked: str, first_pause: int) -> str:
    """Command with which the executor learns what became of its jobs: `squeue` where there is no accounting.

    Args:
        asked: Command that it would use, `sacct` or `squeue`.
        first_pause: Seconds that it waits before it asks for the first time.

    Raises:
        UserError: neither can tell: there is no accounting, and Slurm forgets ended jobs too early.
    """
    accounting = _ask(*STATES["sacct"])
    if not accounting.failed:
        return asked
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", _ask("scontrol", "show", "config").text, re.MULTILINE)
    remembered = int(age[1]) if age else 0
    needed = max(PAUSES_REMEMBERED * first_pause, LONGEST_PAUSE + ANSWERING)
    if remembered < needed:
        raise UserError(
            f"Slurm has no accounting here (sacct: {accounting.reason}) and forgets ended jobs after"
            f" {remembered} s, so that nobody would learn what became of them; have MinJobAge={needed} set in"
            " slurm.conf, or run the study as one job: sbatch --exclusive --wrap 'snakemake --cores all'"
        )
    return "squeue"


def wait_for_answers(executor: type[Any], command: str) -> None:
    """Let an executor ask after its jobs only while Slurm answers.

    The one for Slurm (2.8.0) forgets its jobs when a few questions at once fail, and then waits for ever: a
    restart of the controller is enough.

    Args:
        executor: Its class, which has the method `check_active_jobs` of all remote executors.
        command: What it asks with, `sacct` or `squeue`.
    """
    check = executor.check_active_jobs

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        silent = False
        while active_jobs and self.wait:
            answer = await asyncio.to_thread(_ask, *STATES[command])
            if not answer.failed:
                break
            if not silent:
                print(f"Slurm does not answer ({command}: {answer.reason}); asking again", file=sys.stderr)
            silent = True
            await asyncio.sleep(ASKED_AGAIN)
        async for job in check(self, active_jobs):
            yield job

    executor.check_active_jobs = check_active_jobs


@dataclass(frozen=True)
class _Answer:
    """What a command printed, and why it failed if it did."""

    text: str
    reason: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason)


def _ask(*command: str) -> _Answer:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_SECONDS, check=False
        )
    except FileNotFoundError:
        return _Answer("", "not installed")
    except subprocess.TimeoutExpired:
        return _Answer("", f"no answer in {PATIENCE_SECONDS} s")
    except OSError as error:
        return _Answer("", str(error.strerror))
    said = " ".join((done.stderr or done.stdout).split())
    return _Answer(done.stdout, (said or f"exit code {done.returncode}") if done.returncode else "")


def _minutes(limit: str) -> int | None:
    """Minutes of a limit like 1-12:30:00; None for one like UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if not found:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes
