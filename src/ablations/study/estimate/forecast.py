"""Forecasts of a study on a device: memory and time of its experiments and of what they share."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from pydantic import ValidationError

from ablations.core.errors import UserError, one_line
from ablations.specs.userfiles import shipped
from ablations.study.estimate.demand import NOTHING, Demand, items_of, job_demand, side_by_side, total_demand
from ablations.study.estimate.rates import AssumedRates, Devices, FittedRates, Rates, timed_jobs
from ablations.study.estimate.shapes import known_models, read_list
from ablations.study.planning.freshness import due_jobs, find_damage
from ablations.study.planning.jobs import Job
from ablations.study.planning.panels import PlannedPanel
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import JOIN, STAGES
from ablations.study.status import blocks

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
        seconds: Time from start to end; of a job that shares its process, its own.
        memory: Bytes that each of its devices must hold.
        fits: Whether the device has that memory.
    """

    job: Job
    seconds: float
    memory: float
    fits: bool


class Forecasts:
    """Forecasts of all that the paper of a study needs.

    Args:
        plan: The study.
        rates: Rates of the device.

    Raises:
        UserError: the size of a model, or the device's peak in a data type, is not known.

    Attributes:
        jobs: Every job but the joining of records, by digest; a series with all its items.
        shared: What one process does for all jobs of a rule, beside their own seconds, by rule: it starts,
            loads its model, and runs the unpruned or undrafted model. Its memory is that of all side by side.
    """

    def __init__(self, plan: Plan, rates: Rates) -> None:
        self._rates = rates
        self._known = known_models(shipped(MODELS))
        needed = [job for job in plan.paper_jobs.values() if job.stage is not JOIN]
        self.jobs = {job.digest: self._job(job) for job in needed}
        self.shared = {
            stage.rule: self._shared(jobs)
            for stage in STAGES
            if stage.panel and (jobs := [job for job in needed if job.stage is stage])
        }

    @property
    def seconds(self) -> float:
        """Seconds of all."""
        return _seconds(self.jobs.values()) + _seconds(self.shared.values())

    def panel(self, panel: PlannedPanel) -> float:
        """Seconds of what the jobs of a panel lack."""
        return self._seconds(panel.jobs[0], total_demand(panel, self._known))

    def _job(self, job: Job) -> Forecast:
        demand = total_demand(job, self._known)
        seconds = self._seconds(job, demand)
        if job.stage.panel:
            one = job_demand(job, self._known)
            own = side_by_side([(replace(one, common=NOTHING), items_of(job))])
            alone = replace(own, work=replace(NOTHING, loaded=own.work.loaded))
            seconds = self._seconds(job, own) - self._seconds(job, alone)
        return self._forecast(job, seconds, demand)

    def _shared(self, jobs: list[Job]) -> Forecast:
        together = side_by_side([(job_demand(job, self._known), items_of(job)) for job in jobs])
        own = _seconds(self.jobs[job.digest] for job in jobs)
        return self._forecast(jobs[0], max(0.0, self._seconds(jobs[0], together) - own), together)

    def _forecast(self, job: Job, seconds: float, demand: Demand) -> Forecast:
        memory = self._rates.memory(demand)
        return Forecast(job, seconds, memory, fits=memory <= self._rates.room)

    def _seconds(self, job: Job, demand: Demand) -> float:
        compute = getattr(job.spec, "compute", None)
        return self._rates.seconds(job.stage.rule, compute.dtype if compute else None, demand)


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


def report(plan: Plan, forecasts: Forecasts, rates: Rates) -> Iterator[str]:
    """Lines of text: the basis of the forecast, every experiment, what they share, and the total."""
    yield f"study '{plan.config.study}' on {rates.name} ({rates.room / GIB:.1f} GiB for a job)"
    yield from rates.basis
    yield f"\n{'experiment':12} {'blocks':>6} {'time':>9} {'memory':>10}"
    measuring: set[str] = set()
    for row in plan.rows:
        series = {
            job.digest: plan.paper_jobs[job.digest] for record in row.jobs for job in record.series.values()
        }
        counted = [job for digest, job in series.items() if digest not in measuring]
        measuring |= series.keys()
        name = row.experiment.id
        if not counted:
            yield f"{name:12} {'':6} {'':9} {'':10}  shares its blocks"
            continue
        number = sum(_block_count(job, plan) for job in counted)
        line = _line(number, [forecasts.jobs[job.digest] for job in counted])
        yield f"{name:12} {line}  {row.experiment.title}"
    others: dict[str, list[Forecast]] = defaultdict(list)
    for digest, forecasted in forecasts.jobs.items():
        if digest not in measuring:
            others[forecasted.job.stage.rule].append(forecasted)
    yield f"\n{'shared':18} {'jobs':>6}"
    yield from (f"{rule:18} {_line(len(of_rule), of_rule)}" for rule, of_rule in others.items())
    yield f"\n{'once for all of them':20}"
    yield from (f"{rule:18} {_line(1, [once])}" for rule, once in forecasts.shared.items())
    total = sum(_block_count(plan.paper_jobs[digest], plan) for digest in measuring)
    number = sum(map(len, others.values()))
    yield (
        f"\ntotal {_time(forecasts.seconds)} for {len(plan.rows)} experiments ({total} blocks) and"
        f" {number} other jobs, one after another"
    )
    damage = find_damage(plan.paper_jobs.values())
    due = due_jobs(plan.paper_results, damage)
    left = sum(blocks(job, plan).missing for job in due.values() if job.stage.has_blocks)
    jobs = [job for job in due.values() if not job.stage.has_blocks and job.stage is not JOIN]
    if left < total or len(jobs) < number:
        seconds = _seconds(forecasts.jobs[job.digest] for job in jobs if not job.stage.panel)
        seconds += sum(map(forecasts.panel, plan.panels(plan.paper_results, damage)))
        yield f"still to run: {left} blocks and {len(jobs)} other jobs, {_time(seconds)}"


def require_room(forecasts: Forecasts, plan: Plan, rates: Rates) -> None:
    """Check that every job fits the device, and so do those that share a process.

    Raises:
        UserError: a job does not fit, of which the largest is named; or those of a rule do not fit together.
    """
    too_large = [forecasted for forecasted in forecasts.jobs.values() if not forecasted.fits]
    if too_large:
        largest = max(too_large, key=lambda forecasted: forecasted.memory)
        of_series = largest.job.stage.has_blocks
        name = plan.label(largest.job.digest) if of_series else largest.job.stage.rule
        more = f" (and {len(too_large) - 1} more jobs)" if len(too_large) > 1 else ""
        raise UserError(
            f"plan: {name} needs about {largest.memory / GIB:.0f} GiB and {rates.name} has"
            f" {rates.room / GIB:.0f} GiB for a job{more}; lower its tokens (sdtp.sweep.lengths,"
            " sdtp.evaluation.prompt_tokens, sdtp.saliency.tokens, sdtp.training.batch), or choose a smaller"
            " data type or model, or a larger device"
        )
    for rule, once in forecasts.shared.items():
        # Fewer experiments may share a process than those of the whole study, which were counted here.
        if not once.fits and plan.config.panel.experiments is None:
            raise UserError(
                f"panel.experiments: all of {rule} side by side need about {once.memory / GIB:.0f} GiB and"
                f" {rates.name} has {rates.room / GIB:.0f} GiB for a job; set the most that share a process"
            )


def _block_count(series: Job, plan: Plan) -> int:
    """Blocks of a series in all."""
    return ceil((series.count or 0) / plan.config.panel.documents)


def _line(number: int, forecasts: list[Forecast]) -> str:
    largest = max(forecasted.memory for forecasted in forecasts)
    mark = "" if all(forecasted.fits for forecasted in forecasts) else "  DOES NOT FIT"
    return f"{number:>6} {_time(_seconds(forecasts)):>9} {largest / GIB:>6.1f} GiB{mark}"


def _seconds(forecasts: Iterable[Forecast]) -> float:
    return sum(forecasted.seconds for forecasted in forecasts)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
