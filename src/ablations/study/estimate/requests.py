"""Memory and time that jobs and panels request from a scheduler, from their demands.

They are bounds for slow machines, not predictions: too little ends a job, too much only delays its start.
"""

from math import ceil
from pathlib import Path

from ablations.core.errors import UserError
from ablations.study.config.study import Resources
from ablations.study.estimate.demand import Demand, total_demand
from ablations.study.estimate.shapes import known_models
from ablations.study.estimate.work import Work
from ablations.study.planning.jobs import Job
from ablations.study.planning.panels import PlannedPanel
from ablations.study.planning.stages import MODEL

MIB = 2**20
BASE_MIB = 2048
"""Memory of a job besides its demand: 1 GiB of interpreter and libraries, texts, what is not counted."""

MEMORY_FACTOR = 2
"""Host memory over the demand: weights are read, kept, and packed for speed."""

UNKNOWN_MIB = 8192
"""Memory of preparing a checkpoint of unknown size: enough for two billion parameters."""

BASE_MINUTES = 20
"""Time of a job besides its work: its start, and its wait for the device lock of another job."""

THREAD_FLOPS, GPU_FLOPS = 1e10, 2e12
"""Operations per second of a CPU thread and of a GPU."""

CPU_BYTES, GPU_BYTES, LOADED_BYTES = 4e9, 2e11, 1e8
"""Bytes per second: host memory, GPU memory, checkpoints read."""

LAYER_SECONDS = 1e-3
"""Seconds of launching a layer."""


class Requests:
    """Memory and time requested for the jobs and panels of a study.

    Args:
        settings: Limits of the study.
        models: File of the known checkpoints.

    Raises:
        UserError: the file is missing or not YAML, or an entry lacks a size.
    """

    def __init__(self, settings: Resources, models: Path) -> None:
        self._settings = settings
        self._known = known_models(models)

    def memory_mib(self, planned: Job | PlannedPanel, ranks: int) -> int:
        """Host memory of a job or a panel, MiB; each of its ranks loads the model."""
        if self._settings.mem_mb is not None:
            return self._settings.mem_mb * ranks
        demand = self._demand(planned)
        if planned.stage is MODEL:
            if demand is None:
                return UNKNOWN_MIB
            # The demand counts the checkpoint three times in half precision.
            return BASE_MIB + ceil(2 * demand.work.loaded / MIB)
        memory = demand.memory if demand else 0.0
        return ranks * (BASE_MIB + ceil(MEMORY_FACTOR * memory / MIB))

    def minutes(self, planned: Job | PlannedPanel) -> int:
        """Time limit of a job or a panel, minutes, at most the study's limit."""
        demand = self._demand(planned)
        work = demand.work if demand else Work()
        gpu = self._settings.gpu > 0
        spec = planned.spec if isinstance(planned, Job) else planned.jobs[0].spec
        compute = getattr(spec, "compute", None)
        flops = GPU_FLOPS if gpu else THREAD_FLOPS * (compute.threads if compute else 1)
        seconds = (
            work.flops / flops
            + work.bytes / (GPU_BYTES if gpu else CPU_BYTES)
            + (work.layers + work.replayed) * LAYER_SECONDS
            + work.loaded / LOADED_BYTES
        )
        return min(self._settings.runtime, BASE_MINUTES + ceil(seconds / 60))

    def _demand(self, planned: Job | PlannedPanel) -> Demand | None:
        """Demand of a job or a panel; None before its checkpoint of unknown size is prepared.

        Its jobs are submitted after the preparation, so that only a dry run shows too small requests.
        """
        try:
            return total_demand(planned, self._known)
        except UserError:
            return None
