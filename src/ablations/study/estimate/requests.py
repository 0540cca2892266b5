"""What a job asks a scheduler for: memory and time, from what it needs.

Bounds for slow machines, not predictions: too little ends a job, too much only lets it wait a little longer.
"""

from math import ceil
from pathlib import Path

from ablations.study.config.study import Resources
from ablations.study.errors import UserError
from ablations.study.estimate.demand import Demand
from ablations.study.estimate.planned import job_demand
from ablations.study.estimate.shapes import known_models
from ablations.study.estimate.work import Work
from ablations.study.planning.jobs import Job

MIB = 2**20
# Interpreter and libraries take about 1 GiB; texts and what is not counted fit into the other.
BASE_MIB = 2048
# Weights are read, kept, and packed for speed.
MEMORY_FACTOR = 2
# A checkpoint of unknown size: enough for two billion parameters.
UNKNOWN_MIB = 8192
# Starting, and waiting for another job's device lock.
BASE_MINUTES = 20
# Per second: operations of a CPU thread and of a GPU, bytes of the memory of each, bytes of checkpoints.
THREAD_FLOPS, GPU_FLOPS, CPU_BYTES, GPU_BYTES, LOADED_BYTES = 1e10, 2e12, 4e9, 2e11, 1e8
LAYER_SECONDS = 1e-3


class Requests:
    """Memory and time of a study's jobs.

    Args:
        settings: Limits of the study.
        models: List of checkpoints that are not here yet, by name.

    Raises:
        UserError: the list is no such list.
    """

    def __init__(self, settings: Resources, models: Path) -> None:
        self._settings = settings
        self._known = known_models(models)

    def memory_mib(self, job: Job, ranks: int) -> int:
        """Host memory, MiB; each of the job's ranks loads the model."""
        if self._settings.mem_mb is not None:
            return self._settings.mem_mb * ranks
        needed = self._demand(job)
        if job.stage.rule == "prepare_model":
            if needed is None:
                return UNKNOWN_MIB
            # Three times in half precision, says the demand.
            return BASE_MIB + ceil(2 * needed.work.loaded / MIB)
        held = needed.memory if needed else 0.0
        return ranks * (BASE_MIB + ceil(MEMORY_FACTOR * held / MIB))

    def minutes(self, job: Job) -> int:
        """Time limit, minutes: no more than the longest that the site allows."""
        needed = self._demand(job)
        work = needed.work if needed else Work()
        gpu = self._settings.gpu > 0
        compute = getattr(job.spec, "compute", None)
        flops = GPU_FLOPS if gpu else THREAD_FLOPS * (compute.threads if compute else 1)
        seconds = (
            work.flops / flops
            + work.bytes / (GPU_BYTES if gpu else CPU_BYTES)
            + (work.layers + work.replayed) * LAYER_SECONDS
            + work.loaded / LOADED_BYTES
        )
        return min(self._settings.runtime, BASE_MINUTES + ceil(seconds / 60))

    def _demand(self, job: Job) -> Demand | None:
        """What a job needs; None before a checkpoint of unknown size is prepared.

        Jobs that run it are submitted after that, so only a dry run sees too little.
        """
        try:
            return job_demand(job, self._known)
        except UserError:
            return None
