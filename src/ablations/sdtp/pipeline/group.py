"""The process group of a pipeline: one process per rank, each with a device of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from platform import node

import torch
from torch import distributed

from ablations.lm.device import configure, own_cores
from ablations.lm.timing import device_lock
from ablations.study.contracts.lm import Compute
from ablations.study.errors import UserError

# Long enough to wait for another job's device lock. A rank that ends closes its connections, which the
# others notice at once; this is for one that hangs.
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Member:
    """One process of the group.

    Attributes:
        rank: Counted from 0, in the order of the layers.
        ranks: Processes of the group.
        local_rank: Rank among the processes of this host.
        device: Where it computes: a GPU that no other rank uses, or the CPU.
        crowded: Why ranks share cores, which would make times meaningless; empty if they do not.
    """

    rank: int
    ranks: int
    local_rank: int
    device: torch.device
    crowded: str

    @property
    def last(self) -> bool:
        """Whether it runs the last layers."""
        return self.rank == self.ranks - 1


@contextmanager
def process_group(
    rank: int, ranks: int, local_rank: int, rendezvous: str, compute: Compute, gpu: int | None = None
) -> Iterator[Member]:
    """Join the group (gloo for tensors on the CPU, NCCL for those on GPUs) and leave it at the end.

    Args:
        rank: Of this process.
        ranks: Processes of the group.
        local_rank: Rank among the processes of this host.
        rendezvous: Where the ranks find each other, as `torch.distributed` takes it.
        compute: How each of them computes.
        gpu: Index of the GPU that is claimed for this rank; None takes the one of its local rank, as whoever
            started the ranks has devices for them.

    Raises:
        UserError: ranks would have to share a GPU, or another rank ended.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cpu")
    if cuda:
        # A launcher may show each process all GPUs of the host, or only its own.
        device = torch.device("cuda", local_rank % torch.cuda.device_count() if gpu is None else gpu)
        torch.cuda.set_device(device)
    configure(compute, device)
    with talking():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=rendezvous,
            rank=rank,
            world_size=ranks,
            timeout=TIMEOUT,
        )
    crowded = _crowded(gather((node(), own_cores(), _own_gpu(device))), compute.threads)
    yield Member(rank, ranks, local_rank, device, crowded)
    # Not in a finally block: after an error the others may never come.
    barrier()
    distributed.destroy_process_group()


@contextmanager
def talking() -> Iterator[None]:
    """Turn a broken connection into one line, so that what broke it is not buried.

    Raises:
        UserError: another rank ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"lost a rank ({str(error).splitlines()[0]}); its own error, if it could print one, says why"
        ) from error


def barrier() -> None:
    """Wait for all ranks (the host, not the device)."""
    with talking():
        distributed.barrier()


def gather(mine: object) -> list:
    """What every rank passes, in their order; it is pickled and goes over the CPU."""
    found = [None] * distributed.get_world_size()
    with talking():
        distributed.all_gather_object(found, mine)
    return found


@contextmanager
def all_locks(member: Member) -> Iterator[None]:
    """Hold the timing lock of every device in the group, taken in the order of ranks.

    Two groups on the same devices then never wait for each other. The ranks of a host share its CPU's lock.
    """
    with ExitStack() as stack:
        for rank in range(member.ranks):
            if rank == member.rank and (member.device.type == "cuda" or member.local_rank == 0):
                stack.enter_context(device_lock(member.device))
            barrier()
        yield


def _own_gpu(device: torch.device) -> str | None:
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def _crowded(places: list[tuple[str, frozenset[int], str | None]], threads: int) -> str:
    """Why times would mean nothing, given each rank's host, cores and GPU.

    Raises:
        UserError: two ranks have the same GPU.
    """
    gpus = [gpu for _, _, gpu in places if gpu is not None]
    if len(set(gpus)) < len(gpus):
        raise UserError(
            f"pipeline.ranks: {len(places)} ranks, but only {len(set(gpus))} GPU(s) for them; lower it, or"
            " hide the GPUs (CUDA_VISIBLE_DEVICES=) to use the CPU"
        )
    if gpus:
        return ""
    for host in {host for host, _, _ in places}:
        cores = [cores for other, cores, _ in places if other == host]
        # A launcher may give each process cores of its own.
        available = len(frozenset().union(*cores))
        if len(cores) * threads > available:
            return f"{len(cores)} ranks of {threads} thread(s) on {available} core(s)"
    return ""
