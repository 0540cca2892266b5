"""An arm's own computation, whose failure is a finding."""

from collections.abc import Callable
from typing import TypeVar

import torch

from ablations.study.contracts.record import Outcome

Result = TypeVar("Result")


class ArmCrashError(Exception):
    """The arm's own computation raised, which is a finding and not an error of the job."""

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


def own(work: Callable[[], Result]) -> Result:
    """Run a part of the arm's own computation.

    Raises:
        ArmCrashError: it raised; running out of memory is no finding and passes through.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        # On the CPU torch has no exception type of its own for this.
        if "DefaultCPUAllocator" in str(error):
            raise MemoryError from error
        raise ArmCrashError(error) from error
