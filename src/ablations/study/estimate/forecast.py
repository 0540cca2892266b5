"""A study on a device: memory and time of each experiment, and of what experiments share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.study.checkout import shipped
from ablations.study.cli import one_line
from ablations.study.errors import UserError
from ablations.study.estimate.finished import finished
from ablations.study.estimate.planned import job_demand
from ablations.study.estimate.rates import AssumedRates, Devices, FittedRates, Rates
from ablations.study.estimate.shapes import known_models, read_own
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan

THIS = "this"
DEVICES = Path("workflow/plan/devices.yaml")
MODELS = Path("workflow/plan/models.yaml")


@dataclass(frozen=True)
class Forecast:
    """What one job is expected to take.

    Attributes:
        job: The job.
        seconds: From start to end.
        memory: Bytes that its device (each of its devices) must hold.
        fits: Whether the device has that much.
    """

    job: Job
    seconds: float
    memory: float
    fits: bool


def rates_of(device: str) -> Rates:
    """Rates of a device by its name; of this machine, by the jobs that ran in this folder.

    Raises:
        UserError: no such device, or too few finished jobs.
    """
    if device == THIS:
        return FittedRates(finished())
    try:
        known = Devices.model_validate(read_own(shipped(DEVICES)))
    except ValidationError as error:
        raise UserError(f"{DEVICES}: {one_line(error)}") from None
    if device not in known.devices:
        raise UserError(
            f"--device: '{device}' is not in {DEVICES} ({', '.join([THIS, *known.devices])}); add it there"
        )
    return AssumedRates(known.devices[device], known.assumptions)


def forecast(plan: Plan, rates: Rates) -> dict[str, Forecast]:
    """Every job that the paper of a study needs, by digest.

    Raises:
        UserError: the size of a model is not known, or nothing tells how fast a job is here.
    """
    known = known_models(shipped(MODELS))
    return {digest: _forecast(job, rates, known) for digest, job in plan.paper_jobs.items()}


def _forecast(job: Job, rates: Rates, known: Mapping[str, Any]) -> Forecast:
    compute = getattr(job.spec, "compute", None)
    needed = job_demand(job, known)
    memory = rates.memory(needed)
    return Forecast(
        job=job,
        seconds=rates.seconds(job.stage.rule, compute.dtype if compute else None, needed),
        memory=memory,
        fits=memory <= rates.room,
    )
