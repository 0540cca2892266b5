"""Start of a pipeline's ranks, as processes of this host or by joining an external launcher's group."""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from ablations.core.block import Span
from ablations.core.errors import UserError, out_of_memory
from ablations.core.job import JobFile, Run
from ablations.core.panel import Member, Panel
from ablations.lm.claims import claim
from ablations.lm.device import visible_gpus
from ablations.sdtp.pipeline.environment import group_environment
from ablations.sdtp.pipeline.group import LostRankError, Peer, process_group
from ablations.specs.sdtp.evaluate import Series

Work = Callable[[Panel[Any], Peer], None]


def launch(work: Work, panel: Panel[Any], ranks: int) -> None:
    """Run `work` in every rank of a pipeline; return when all ranks have ended.

    If the environment describes a group of the right size (torchrun, srun), this process joins it. Otherwise,
    as in a Snakemake job, this process starts the ranks as processes of this host; when one rank fails, the
    others are ended at once.

    Args:
        work: A module-level function; it takes the panel and the rank's `Peer`. The members of rank 0 write
            and report; those of the other ranks must not.
        panel: The jobs.
        ranks: Processes.

    Raises:
        UserError: a rank failed, or the environment describes a group of another size.
    """
    group = group_environment(ranks)
    if group is None:
        _start(work, panel, ranks)
        return
    compute = panel.first.spec.compute
    try:
        with process_group(group.rank, ranks, group.local_rank, group.rendezvous, compute) as peer:
            work(panel, peer)
    except Exception as error:
        # Any exception must end the process: open connections would keep the other ranks waiting.
        raise UserError(f"rank {group.rank}: {_one_line(error)}") from None


def _start(work: Work, panel: Panel[Any], ranks: int) -> None:
    available, claimed = torch.cuda.device_count(), None
    if available >= ranks:
        # Claimed by this process, which outlives its ranks.
        claimed = claim(visible_gpus(), ranks)
    elif available:
        # Two ranks on one GPU would slow each other down; on the CPU bytes are the same. The record names it.
        print(
            f"{ranks} ranks, but {available} GPU(s): the pipeline runs on the CPU",
            file=sys.stderr,
            flush=True,
        )
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    members = panel.active
    with tempfile.TemporaryDirectory(prefix="ablations-ranks-") as name:
        folder = Path(name)
        arguments = (work, ranks, claimed, folder, [_packed(member) for member in members])
        try:
            multiprocessing.spawn(_rank, arguments, nprocs=ranks)  # type: ignore[attr-defined]
        except (
            multiprocessing.ProcessExitedException,  # type: ignore[attr-defined]
            multiprocessing.ProcessRaisedException,  # type: ignore[attr-defined]
        ) as error:
            if (folder / "error").is_file():
                raise UserError((folder / "error").read_text(encoding="utf-8")) from None
            raise UserError(f"rank {error.error_index}: {str(error).splitlines()[0]}") from None
        failures = json.loads((folder / "failures.json").read_text(encoding="utf-8"))
    # Rank 0 has reported them.
    for member, failure in zip(members, failures, strict=True):
        member.failure = failure


def _packed(member: Member[Any]) -> tuple[str, Path, str | None, Sequence[Span]]:
    """A member as it is sent to a rank: its job as JSON, since a generic contract cannot be pickled."""
    run = member.run
    return run.job.model_dump_json(), run.out, run.label, member.spans


def _unpacked(job: str, out: Path, label: str | None, spans: Sequence[Span]) -> Member[Any]:
    spec_type: Any = JobFile[Series]
    return Member(Run(spec_type.model_validate_json(job), out, label), spans)


def _rank(
    rank: int,
    work: Work,
    ranks: int,
    claimed: list[int] | None,
    folder: Path,
    members: Sequence[tuple[str, Path, str | None, Sequence[Span]]],
) -> None:
    """Body of a process that `_start` started."""
    # Python's own handler would not run while the rank is blocked in a receive. SIGINT comes from Ctrl-C, and
    # when the parent ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        panel = Panel([_unpacked(*member) for member in members])
        gpu = claimed[rank] if claimed else None
        compute = panel.first.spec.compute
        with process_group(rank, ranks, rank, f"file://{folder}/store", compute, gpu) as peer:
            work(panel, peer)
        if rank == 0:
            failures = [member.failure for member in panel.members]
            (folder / "failures.json").write_text(json.dumps(failures), encoding="utf-8")
    except Exception as error:
        message = f"rank {rank}: {_one_line(error)}"
        try:
            # The first rank that writes the file is the cause: the others fail when its connections close.
            with (folder / "error").open("x", encoding="utf-8") as file:
                file.write(message)
        except FileExistsError:
            pass
        sys.stderr.flush()
        os._exit(1)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError | LostRankError):
        return str(error)
    if out_of_memory(error):
        return "out of memory; lower the token budgets in config.yaml, or use a larger machine"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
