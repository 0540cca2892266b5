"""Crashes of the measured method, which are results and not errors of the job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ablations.core.panel import Member
from ablations.core.record import Outcome


class ArmCrashError(Exception):
    """The computation of the measured method raised an exception.

    Attributes:
        outcome: Outcome for the record: the exception, and the function that raised it.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        traceback = cause.__traceback__
        while traceback.tb_next is not None:
            traceback = traceback.tb_next
        frame = traceback.tb_frame
        self.outcome = Outcome(
            status="crashed",
            exception=type(cause).__name__,
            message=(str(cause).splitlines() or [""])[0],
            place=f"{frame.f_code.co_qualname} in {frame.f_globals['__name__']}",
        )


@contextmanager
def arm_failures() -> Iterator[None]:
    """Turn an exception of the measured method into a crash of the arm.

    Out-of-memory errors pass through: they say nothing about the method.

    Raises:
        ArmCrashError: the block raised `RuntimeError`, `IndexError` or `ValueError`.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        # On the CPU torch raises a plain RuntimeError when memory runs out.
        if "DefaultCPUAllocator" in str(error):
            raise MemoryError from error
        raise ArmCrashError(error) from error


@contextmanager
def arm_at_work(member: Member, number: int, unpruned: Callable[[], object]) -> Iterator[None]:
    """Work on item `number` of a series; a `UserError` or a crash of the arm ends this series alone.

    Args:
        member: The series.
        number: Number of the item.
        unpruned: Prefills the item's prompt without pruning.
    """
    with member.at_work():
        try:
            yield
        except ArmCrashError as crash:
            # Raises if the machine cannot run the unpruned prompt either: then the crash is not the arm's.
            unpruned()
            member.crash(number, crash.outcome)
