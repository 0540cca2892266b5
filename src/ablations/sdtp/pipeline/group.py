"""The process group of a pipeline: one process per rank, each with its own device."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from platform import node
from typing import TypeVar

import torch
from torch import distributed

from ablations.core.errors import UserError
from ablations.lm.device import available_cores, configure
from ablations.lm.timing import device_lock
from ablations.specs.lm import Compute

Value = TypeVar("Value")

# For a rank that hangs: a rank that ends closes its connections, which the others notice at once. Long enough
# to wait for another job's device lock.
TIMEOUT = timedelta(minutes=30)


class LostRankError(Exception):
    """Another rank ended, or does not answer: nothing goes on, whatever was at work."""


@dataclass(frozen=True)
class Peer:
    """One process of the group.

    Attributes:
        rank: Rank of the process, from 0, in the order of the layers.
        ranks: Processes of the group.
        local_rank: Rank among the processes of this host.
        device: Device of the process: a GPU that no other rank uses, or the CPU.
        core_shortage: Ranks, threads and cores of a host whose ranks share cores, so that times would be
            meaningless; empty if no ranks share cores.
    """

    rank: int
    ranks: int
    local_rank: int
    device: torch.device
    core_shortage: str

    @property
    def last(self) -> bool:
        """Whether the process runs the last layers."""
        return self.rank == self.ranks - 1


@contextmanager
def process_group(
    rank: int, ranks: int, local_rank: int, rendezvous: str, compute: Compute, gpu: int | None = None
) -> Iterator[Peer]:
    """Join the group (gloo for tensors on the CPU, NCCL for tensors on GPUs) and leave it at the end.

    Args:
        rank: Rank of this process.
        ranks: Processes of the group.
        local_rank: Rank among the processes of this host.
        rendezvous: Init method of `torch.distributed`, by which the ranks find each other.
        compute: Threads and data type of each rank.
        gpu: Index of the GPU that was claimed for this rank; None takes the GPU of its local rank, since an
            external launcher allocates the devices of its ranks.

    Raises:
        UserError: two ranks have the same GPU.
        LostRankError: another rank ended.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cpu")
    if cuda:
        # A launcher may show a process all GPUs of the host, or only its own.
        device = torch.device("cuda", local_rank % torch.cuda.device_count() if gpu is None else gpu)
        torch.cuda.set_device(device)
    configure(compute, device)
    with connection_errors():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=rendezvous,
            rank=rank,
            world_size=ranks,
            timeout=TIMEOUT,
        )
    core_shortage = _core_shortage(gather((node(), available_cores(), _own_gpu(device))), compute.threads)
    yield Peer(rank, ranks, local_rank, device, core_shortage)
    # Not in a finally block: after an error the other ranks may never reach the barrier.
    barrier()
    distributed.destroy_process_group()


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn a broken connection into an error of one line, so that the other rank's error stays visible.

    Raises:
        LostRankError: another rank ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"lost a rank ({str(error).splitlines()[0]}); its own error, if it could print one, says why"
        ) from error


def barrier() -> None:
    """Wait for all ranks; the host waits, not the device."""
    with connection_errors():
        distributed.barrier()


def gather(value: object) -> list:
    """The values of all ranks, in rank order; they are pickled and sent over the CPU."""
    values = [None] * distributed.get_world_size()
    with connection_errors():
        distributed.all_gather_object(values, value)
    return values


def broadcast(value: Value) -> Value:
    """The value of rank 0; those of the other ranks are not used."""
    return gather(value)[0]


@contextmanager
def all_locks(peer: Peer) -> Iterator[None]:
    """Hold the timing locks of all devices of the group.

    The ranks take their locks in rank order, so that two groups on the same devices never wait for each
    other. The ranks of a host share the lock of its CPU.
    """
    with ExitStack() as stack:
        for rank in range(peer.ranks):
            if rank == peer.rank and (peer.device.type == "cuda" or peer.local_rank == 0):
                stack.enter_context(device_lock(peer.device))
            barrier()
        yield


def _own_gpu(device: torch.device) -> str | None:
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def _core_shortage(placements: list[tuple[str, frozenset[int], str | None]], threads: int) -> str:
    """Ranks, threads and cores of a host with fewer cores than threads; empty if there is none.

    Args:
        placements: Host, usable cores and GPU of each rank.
        threads: Threads of each rank.

    Raises:
        UserError: two ranks have the same GPU.
    """
    gpus = [gpu for _, _, gpu in placements if gpu is not None]
    if len(set(gpus)) < len(gpus):
        raise UserError(
            f"pipeline.ranks: {len(placements)} ranks, but only {len(set(gpus))} GPU(s) for them; lower it,"
            " or hide the GPUs (CUDA_VISIBLE_DEVICES=) to use the CPU"
        )
    if gpus:
        return ""
    for host in {host for host, _, _ in placements}:
        cores = [cores for name, cores, _ in placements if name == host]
        # A launcher may give each process its own cores.
        available = len(frozenset().union(*cores))
        if len(cores) * threads > available:
            return f"{len(cores)} ranks of {threads} thread(s) on {available} core(s)"
    return ""
