"""Starting the ranks of a pipeline, or joining those that a launcher outside has started."""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import multiprocessing

from ablations.lm.claims import claim
from ablations.lm.device import gpus
from ablations.sdtp.pipeline.environment import described
from ablations.sdtp.pipeline.group import Member, process_group
from ablations.study.cli import out_of_memory
from ablations.study.contracts.sdtp import EvaluateSpec
from ablations.study.errors import UserError
from ablations.study.job import JobFile, Run

Work = Callable[[Run[EvaluateSpec], Member], None]


def launch(work: Work, run: Run[EvaluateSpec]) -> None:
    """Do `work` in every rank of a pipeline; return when all have ended.

    Where the environment describes a group of the right size (torchrun, srun), this process joins it. A lone
    process, as in a Snakemake job, starts the ranks itself as processes of this host; when one of them fails,
    the others are ended at once.

    Args:
        work: A function of a module; it is given the run and the process it works in.
        run: The job, whose spec says how many ranks.

    Raises:
        UserError: a rank failed, or the environment describes a group of another size.
    """
    ranks = run.spec.pipeline.ranks
    group = described(ranks)
    if group is None:
        _start(work, run, ranks)
        return
    try:
        with process_group(group.rank, ranks, group.local_rank, group.rendezvous, run.spec.compute) as member:
            work(run, member)
    except Exception as error:
        # Whatever it is: a process that keeps its connections open would keep the others waiting.
        raise UserError(f"rank {group.rank}: {_one_line(error)}") from None


def _start(work: Work, run: Run[EvaluateSpec], ranks: int) -> None:
    available, claimed = torch.cuda.device_count(), None
    if available >= ranks:
        # This process holds the claims for its ranks.
        claimed = claim(gpus(), ranks)
    elif available:
        # Two ranks on one GPU would measure each other; on the CPU bytes are the same. The record says so.
        print(
            f"{ranks} ranks, but {available} GPU(s): the pipeline runs on the CPU",
            file=sys.stderr,
            flush=True,
        )
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="ablations-ranks-") as name:
        folder = Path(name)
        arguments = (work, ranks, claimed, folder, run.job.model_dump_json(), run.out, run.label)
        try:
            multiprocessing.spawn(_rank, arguments, nprocs=ranks)  # type: ignore[attr-defined]
        except (
            multiprocessing.ProcessExitedException,  # type: ignore[attr-defined]
            multiprocessing.ProcessRaisedException,  # type: ignore[attr-defined]
        ) as error:
            if (folder / "error").is_file():
                raise UserError((folder / "error").read_text(encoding="utf-8")) from None
            raise UserError(f"rank {error.error_index}: {str(error).splitlines()[0]}") from None


def _rank(
    rank: int,
    work: Work,
    ranks: int,
    claimed: list[int] | None,
    folder: Path,
    job: str,
    out: Path,
    label: str | None,
) -> None:
    """Body of a process that `_start` made."""
    # Blocked in a receive, Python would never see the signal that the parent's end or Ctrl-C sends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # A generic contract does not survive pickling, its JSON does.
        run = Run(JobFile[EvaluateSpec].model_validate_json(job), out, label)
        gpu = claimed[rank] if claimed else None
        with process_group(rank, ranks, rank, f"file://{folder}/store", run.spec.compute, gpu) as member:
            work(run, member)
    except Exception as error:
        message = f"rank {rank}: {_one_line(error)}"
        try:
            # The first to get here is the cause: the others fail when this process closes its connections.
            with (folder / "error").open("x", encoding="utf-8") as file:
                file.write(message)
        except FileExistsError:
            pass
        sys.stderr.flush()
        os._exit(1)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if out_of_memory(error):
        return "out of memory; lower the token budgets in config.yaml, or use a larger machine"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
