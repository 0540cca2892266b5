"""Process groups that an external launcher (torchrun, srun) describes in environment variables."""

import os
import subprocess
from dataclasses import dataclass

from ablations.core.errors import UserError


@dataclass(frozen=True)
class GroupEnvironment:
    """This process's place in a group that an external launcher started.

    Attributes:
        rank: Rank of this process.
        local_rank: Its rank among the processes of this host.
        rendezvous: Init method of `torch.distributed`, by which the ranks find each other.
    """

    rank: int
    local_rank: int
    rendezvous: str


def group_environment(ranks: int) -> GroupEnvironment | None:
    """The group that torchrun (or another launcher with its variables) or srun describes; None without one.

    Only `srun` starts several processes in a Slurm job, and only `srun` sets `SLURM_STEP_NUM_TASKS`. So a
    Slurm job without a step is a single process, whatever its allocation (`SLURM_NTASKS`).

    Args:
        ranks: Processes that the spec asks for.

    Raises:
        UserError: the group has another size, a variable is missing or not a number, or the host of rank 0
            cannot be determined.
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


def _number(variables: os._Environ, name: str, default: str | None = None) -> int:
    """Value of a variable, or `default` if it is unset or empty."""
    text = variables.get(name) or default or ""
    if not text.isdecimal():
        raise UserError(
            f"{name}: '{text}' is no number of a process group; unset it, or let torchrun or srun set it"
        )
    return int(text)


def _torchrun(variables: os._Environ) -> GroupEnvironment:
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not variables.get(name)]
    if missing:
        raise UserError(f"WORLD_SIZE is set but {missing[0]} is not; use torchrun, which sets all of them")
    return GroupEnvironment(
        rank=_number(variables, "RANK"),
        local_rank=_number(variables, "LOCAL_RANK", variables["RANK"]),
        rendezvous="env://",
    )


def _slurm(variables: os._Environ) -> GroupEnvironment:
    host = variables.get("MASTER_ADDR") or _first_host(variables)
    # A port derived from the job's number, as is usual: the same on all ranks, and rarely in use.
    port = variables.get("MASTER_PORT") or 20000 + _number(variables, "SLURM_JOB_ID") % 10000
    return GroupEnvironment(
        rank=_number(variables, "SLURM_PROCID"),
        local_rank=_number(variables, "SLURM_LOCALID"),
        rendezvous=f"tcp://{host}:{port}",
    )


def _first_host(variables: os._Environ) -> str:
    """Host of rank 0: this one, or the first of a Slurm list such as ``node[03-04,07]``."""
    if variables.get("SLURM_STEP_NUM_NODES") == "1":
        # The node's name may not resolve.
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", variables["SLURM_STEP_NODELIST"]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"'{' '.join(command)}' failed ({error}); set MASTER_ADDR to the host of rank 0"
        ) from None
    return done.stdout.split()[0]
