"""Forecasts of a study on a device: memory and time of its experiments and of the jobs that they share."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.core.errors import UserError, one_line
from ablations.specs.userfiles import shipped
from ablations.study.estimate.demand import job_demand
from ablations.study.estimate.rates import AssumedRates, Devices, FittedRates, Rates, timed_jobs
from ablations.study.estimate.shapes import known_models, read_list
from ablations.study.planning.freshness import due_jobs, find_damage
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan

THIS = "this"
"""Name of the device of this machine."""

DEVICES = Path("workflow/plan/devices.yaml")
MODELS = Path("workflow/plan/models.yaml")
GIB = 2**30


@dataclass(frozen=True)
class Forecast:
    """Expected time and memory of a job.

    Attributes:
        job: The job.
        seconds: Time from start to end.
        memory: Bytes that each of its devices must hold.
        fits: Whether the device has that memory.
    """

    job: Job
    seconds: float
    memory: float
    fits: bool


def rates_of(device: str) -> Rates:
    """Rates of a device of the list; those of this machine are fitted to the jobs that ran in this folder.

    Raises:
        UserError: the device is not in the list, or too few jobs ran here.
    """
    if device == THIS:
        return FittedRates(timed_jobs())
    try:
        known = Devices.model_validate(read_list(shipped(DEVICES)))
    except ValidationError as error:
        raise UserError(f"{DEVICES}: {one_line(error)}") from None
    if device not in known.devices:
        raise UserError(
            f"--device: '{device}' is not in {DEVICES} ({', '.join([THIS, *known.devices])}); add it there"
        )
    return AssumedRates(known.devices[device], known.assumptions)


def forecast(plan: Plan, rates: Rates) -> dict[str, Forecast]:
    """Forecast of every job that the paper of a study needs, by digest.

    Raises:
        UserError: the size of a model, or the device's peak in a data type, is not known.
    """
    known = known_models(shipped(MODELS))
    return {digest: _forecast(job, rates, known) for digest, job in plan.paper_jobs.items()}


def report(plan: Plan, forecasts: Mapping[str, Forecast], rates: Rates) -> Iterator[str]:
    """Lines of text: the basis of the forecast, every experiment, the shared jobs, and the total."""
    yield f"study '{plan.config.study}' on {rates.name} ({rates.room / GIB:.1f} GiB for a job)"
    yield from rates.basis
    yield f"\n{'experiment':12} {'jobs':>4} {'time':>9} {'memory':>10}"
    measuring: set[str] = set()
    for row in plan.rows:
        counted = [forecasts[job.digest] for job in row.jobs if job.digest not in measuring]
        measuring |= {job.digest for job in row.jobs}
        name = row.experiment.id
        if not counted:
            yield f"{name:12} {'':4} {'':9} {'':10}  shares a record"
            continue
        yield f"{name:12} {_line(counted)}  {row.experiment.title}"
    shared: dict[str, list[Forecast]] = defaultdict(list)
    for digest, forecasted in forecasts.items():
        if digest not in measuring:
            shared[forecasted.job.stage.rule].append(forecasted)
    if shared:
        yield f"\n{'shared':12}"
        yield from (f"{rule:12} {_line(of_rule)}" for rule, of_rule in shared.items())
    yield f"\ntotal {_time(_seconds(forecasts.values()))} for {len(forecasts)} jobs, one after another"
    due = due_jobs(plan.paper_results, find_damage(plan.paper_jobs.values()))
    if len(due) < len(forecasts):
        seconds = _seconds(forecasts[digest] for digest in due)
        yield f"still to run: {len(due)} jobs, {_time(seconds)}"


def require_room(forecasts: Iterable[Forecast], plan: Plan, rates: Rates) -> None:
    """Check that every job fits the device.

    Raises:
        UserError: a job does not fit; the largest is named.
    """
    too_large = [forecasted for forecasted in forecasts if not forecasted.fits]
    if not too_large:
        return
    largest = max(too_large, key=lambda forecasted: forecasted.memory)
    names = [row.experiment.id for row in plan.rows if largest.job in row.jobs] or [largest.job.stage.rule]
    more = f" (and {len(too_large) - 1} more jobs)" if len(too_large) > 1 else ""
    raise UserError(
        f"plan: {names[0]} needs about {largest.memory / GIB:.0f} GiB and {rates.name} has"
        f" {rates.room / GIB:.0f} GiB for a job{more}; lower its tokens (sdtp.sweep.lengths,"
        " sdtp.evaluation.prompt_tokens, sdtp.saliency.tokens, sdtp.training.batch), or choose a smaller"
        " data type or model, or a larger device"
    )


def _forecast(job: Job, rates: Rates, known: Mapping[str, Any]) -> Forecast:
    compute = getattr(job.spec, "compute", None)
    demand = job_demand(job, known)
    memory = rates.memory(demand)
    return Forecast(
        job=job,
        seconds=rates.seconds(job.stage.rule, compute.dtype if compute else None, demand),
        memory=memory,
        fits=memory <= rates.room,
    )


def _line(forecasts: list[Forecast]) -> str:
    largest = max(forecasted.memory for forecasted in forecasts)
    mark = "" if all(forecasted.fits for forecasted in forecasts) else "  DOES NOT FIT"
    return f"{len(forecasts):>4} {_time(_seconds(forecasts)):>9} {largest / GIB:>6.1f} GiB{mark}"


def _seconds(forecasts: Iterable[Forecast]) -> float:
    return sum(forecasted.seconds for forecasted in forecasts)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
