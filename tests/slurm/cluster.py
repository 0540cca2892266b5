"""A real Slurm of one node on the loopback interface, started for tests and stopped after them."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client munge"
DAEMONS = ("munged", "slurmctld", "slurmd")
# Where Debian's Slurm looks. Snakemake's executor strips SLURM_CONF from the environment of a job's step, so
# that another place would not do.
CONFIGURATION = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
OURS = "# written by the tests of ablations\n"
"""First line of every configuration file of the tests."""
ASIDE = ".before-the-tests-of-ablations"
"""What the name of a file that was there before ends with while the tests run."""
CPUS, MEMORY_MIB = 4, 16000
# Stand for GPUs: without cgroups nobody opens them.
GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")

SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
KillWait=3
MinJobAge=3600
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=main Nodes=node Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=short Nodes=node MaxTime=20 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=node MaxTime=60 PriorityTier=2 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Job:
    """What Slurm says of a job: times in seconds, the limit in minutes, memory in MiB.

    `name` is what the job's rule was asked for: the digest of a job, or of a panel.
    """

    id: str
    state: str
    partition: str
    minutes: int
    memory: int
    tasks: int
    cpus: int
    tres: str
    rule: str
    name: str
    started: float
    ended: float
    exclusive: bool
    restarts: int
    folder: Path


class Cluster:
    """A running Slurm.

    Args:
        folder: Spool, state and logs; on a path short enough for a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen] = []

    @contextlib.contextmanager
    def running(self) -> Iterator["Cluster"]:
        """Start the daemons; stop them, and give the configuration back, at the end."""
        with saved(CONFIGURATION):
            try:
                self._start()
                yield self
            finally:
                self._stop()

    def jobs(self, folder: Path) -> list[Job]:
        """Every job that was submitted from a folder or from one below it, in the order of submission."""
        shown = self._ask("scontrol", "show", "job", "--oneliner")
        # What sbatch has refused stands there without tasks.
        lines = [line for line in shown.splitlines() if line.startswith("JobId=") and "Tasks=N/A" not in line]
        found = [_job(line) for line in lines]
        return sorted(
            (job for job in found if job.folder.is_relative_to(folder)), key=lambda job: int(job.id)
        )

    def wait(self, state: str, rule: str, folder: Path, after: int = 0, seconds: float = 120) -> Job:
        """The first job of a rule that is in a state, of those of a folder but for the first `after`."""
        for _ in tries(seconds):
            for job in self.jobs(folder)[after:]:
                if (job.state, job.rule) == (state, rule):
                    return job
        raise AssertionError(f"no {state} job of rule {rule} in {seconds} s: {self.jobs(folder)}")

    def cancel(self, folder: Path) -> None:
        """End all jobs of a folder and wait until they are gone."""
        states = ("PENDING", "RUNNING", "COMPLETING")
        if active := [job.id for job in self.jobs(folder) if job.state in states]:
            self._ask("scancel", "--signal=KILL", "--full", *active)
            self._ask("scancel", *active)
        for _ in tries(120):
            if not any(job.state in states for job in self.jobs(folder)):
                return
        raise AssertionError(f"jobs are still there after 120 s: {self.jobs(folder)}\n{self.logs()}")

    @contextlib.contextmanager
    def without_controller(self) -> Iterator[None]:
        """Stop the controller, start it again at the end; jobs go on meanwhile."""
        position = DAEMONS.index("slurmctld")
        self._processes[position].terminate()
        self._processes[position].wait(60)
        try:
            yield
        finally:
            self._daemon("slurmctld", "-D")
            self._processes[position] = self._processes.pop()

    def _start(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        key = munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        CONFIGURATION.mkdir(exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        text = SLURM_CONF.format(
            host=host, ports=_free_ports(2), folder=self.folder, cpus=CPUS, memory=MEMORY_MIB, gpus=len(GPUS)
        )
        gpus = f"NodeName=node Name=gpu File={','.join(GPUS)}\n"
        for name, content in zip(FILES, (text, gpus, "IgnoreSystemd=yes\n"), strict=True):
            (CONFIGURATION / name).write_text(OURS + content)
        self._daemon(
            "munged",
            *("--foreground", "--force", f"--key-file={key}", f"--socket={munge}/socket"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-N", "node")
        for _ in tries(60):
            if "idle" in self._ask("sinfo", "--noheader", "--Node", "--format=%T", check=False):
                return
            if any(process.poll() is not None for process in self._processes):
                break
        raise AssertionError(f"Slurm did not start:\n{self.logs()}")

    def logs(self) -> str:
        """The end of every daemon's output."""
        found = [self.folder / f"{name}.out" for name in DAEMONS]
        found += [self.folder / f"{name}.log" for name in DAEMONS]
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in found if path.exists())

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("w") as out:
            process = subprocess.Popen(
                [shutil.which(name) or f"/usr/sbin/{name}", *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    def _stop(self) -> None:
        try:
            with contextlib.suppress(subprocess.CalledProcessError):
                self.cancel(Path("/"))
        finally:
            for process in reversed(self._processes):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _ask(self, *command: str, check: bool = True) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=check).stdout


def tries(seconds: float, pause: float = 0.3) -> Iterator[None]:
    """Turns of a loop that waits for something; a pause of the whole machine uses up none."""
    for _ in range(round(seconds / pause)):
        yield
        time.sleep(pause)


@contextlib.contextmanager
def saved(folder: Path) -> Iterator[None]:
    """Put a folder's configuration files back as they were, also those that killed tests have set aside."""
    existed = folder.exists()
    put_back(folder)
    for name in FILES:
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}{ASIDE}")
    try:
        yield
    finally:
        put_back(folder)
        if not existed:
            shutil.rmtree(folder)


def put_back(folder: Path) -> None:
    """Delete what the tests wrote into a folder and give what they set aside its name again."""
    for path in (folder / name for name in FILES):
        if path.exists() and path.read_text().startswith(OURS):
            path.unlink()
        aside = path.with_name(f"{path.name}{ASIDE}")
        if aside.exists():
            aside.rename(path)


def missing_programs() -> list[str]:
    """Daemons that are not installed."""
    return [name for name in DAEMONS if not (shutil.which(name) or Path(f"/usr/sbin/{name}").exists())]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _job(line: str) -> Job:
    fields = dict(part.partition("=")[::2] for part in line.split() if "=" in part)
    rule, _, name = fields.get("Comment", "").removeprefix("rule_").partition("_wildcards_")
    return Job(
        id=fields["JobId"],
        state=fields["JobState"],
        partition=fields["Partition"],
        minutes=_minutes(fields["TimeLimit"]),
        memory=_mib(fields["MinMemoryNode"]),
        tasks=int(fields["NumTasks"]),
        cpus=int(fields["NumCPUs"].partition("-")[0]),
        tres=fields.get("TresPerJob", ""),
        rule=rule,
        name=name,
        started=_seconds(fields["StartTime"]),
        ended=_seconds(fields["EndTime"]),
        exclusive=fields["OverSubscribe"] == "NO",
        restarts=int(fields["Restarts"]),
        folder=Path(fields["WorkDir"]),
    )


def _mib(memory: str) -> int:
    # A job that asks for none has a bare 0.
    unit = {"M": 1, "G": 1024}.get(memory[-1], 0)
    return round(float(memory[:-1] or 0) * unit)


def _minutes(limit: str) -> int:
    days, _, clock = limit.rpartition("-")
    hours, minutes, _ = (int(part) for part in clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + minutes


def _seconds(moment: str) -> float:
    return float("nan") if moment == "Unknown" else time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))
