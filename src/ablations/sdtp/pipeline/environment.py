"""Process groups that a launcher outside has already described in the environment."""

import os
import subprocess
from dataclasses import dataclass

from ablations.study.errors import UserError


@dataclass(frozen=True)
class Described:
    """This process in a group that somebody else started.

    Attributes:
        rank: Of this process.
        local_rank: The same among the processes of this host.
        rendezvous: Where the ranks find each other, as `torch.distributed` takes it.
    """

    rank: int
    local_rank: int
    rendezvous: str


def described(ranks: int) -> Described | None:
    """The group that torchrun (or whatever sets its variables) or srun describes; None for a lone process.

    A Slurm job without a job step is alone, whatever its allocation (`SLURM_NTASKS`) may be: `srun` alone
    starts several processes, and only it sets `SLURM_STEP_NUM_TASKS`.

    Args:
        ranks: Processes that the spec asks for.

    Raises:
        UserError: the group has another size, or its first host cannot be found out.
    """
    for size_variable, read in (("WORLD_SIZE", _torchrun), ("SLURM_STEP_NUM_TASKS", _slurm)):
        size = _number(os.environ, size_variable, "1")
        if size == ranks:
            return read(os.environ)
        if size > 1:
            raise UserError(
                f"pipeline.ranks: {ranks}, but the environment describes {size} processes ({size_variable});"
                f" start {ranks}, or a single one, which starts its ranks itself"
            )
    return None


def _number(variables: os._Environ, name: str, usual: str | None = None) -> int:
    """Value of a variable; an empty one is like one that is not set."""
    text = variables.get(name) or usual or ""
    if not text.isdecimal():
        raise UserError(
            f"{name}: '{text}' is no number of a process group; unset it, or let torchrun or srun set it"
        )
    return int(text)


def _torchrun(variables: os._Environ) -> Described:
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not variables.get(name)]
    if missing:
        raise UserError(f"WORLD_SIZE is set but {missing[0]} is not; use torchrun, which sets all of them")
    return Described(
        rank=_number(variables, "RANK"),
        local_rank=_number(variables, "LOCAL_RANK", variables["RANK"]),
        rendezvous="env://",
    )


def _slurm(variables: os._Environ) -> Described:
    host = variables.get("MASTER_ADDR") or _first_host(variables)
    # The same on all ranks and rarely in use: the usual choice is a port made of the job's number.
    port = variables.get("MASTER_PORT") or 20000 + _number(variables, "SLURM_JOB_ID") % 10000
    return Described(
        rank=_number(variables, "SLURM_PROCID"),
        local_rank=_number(variables, "SLURM_LOCALID"),
        rendezvous=f"tcp://{host}:{port}",
    )


def _first_host(variables: os._Environ) -> str:
    """Host of rank 0: this one, or the first of a Slurm list such as ``node[03-04,07]``."""
    if variables.get("SLURM_STEP_NUM_NODES") == "1":
        # A node's name need not be one that resolves.
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", variables["SLURM_STEP_NODELIST"]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"'{' '.join(command)}' failed ({error}); set MASTER_ADDR to the host of rank 0"
        ) from None
    return done.stdout.split()[0]
