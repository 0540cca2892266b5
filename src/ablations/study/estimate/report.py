"""A forecast as text."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from ablations.study.errors import UserError
from ablations.study.estimate.forecast import Forecast
from ablations.study.estimate.rates import Rates
from ablations.study.planning.damage import find_damage
from ablations.study.planning.inputs import due_jobs
from ablations.study.planning.plan import Plan

GIB = 2**30


def report(plan: Plan, found: Mapping[str, Forecast], rates: Rates) -> Iterator[str]:
    """Lines: what the forecast rests on, every experiment, what experiments share, and the total."""
    yield f"study '{plan.config.study}' on {rates.name} ({rates.room / GIB:.1f} GiB for a job)"
    yield from rates.basis
    yield f"\n{'experiment':12} {'jobs':>4} {'time':>9} {'memory':>10}"
    own: set[str] = set()
    for row in plan.rows:
        fresh = [found[job.digest] for job in row.jobs if job.digest not in own]
        own |= {job.digest for job in row.jobs}
        name = row.experiment.id
        if not fresh:
            yield f"{name:12} {'':4} {'':9} {'':10}  shares a record"
            continue
        yield f"{name:12} {_line(fresh)}  {row.experiment.title}"
    shared: dict[str, list[Forecast]] = defaultdict(list)
    for digest, item in found.items():
        if digest not in own:
            shared[item.job.stage.rule].append(item)
    if shared:
        yield f"\n{'shared':12}"
        yield from (f"{rule:12} {_line(items)}" for rule, items in shared.items())
    total = sum(item.seconds for item in found.values())
    due = due_jobs(plan.paper_results, find_damage(plan.paper_jobs.values()))
    missing = [found[digest] for digest in due]
    yield f"\ntotal {_time(total)} for {len(found)} jobs, one after another"
    if len(missing) < len(found):
        yield f"still to run: {len(missing)} jobs, {_time(sum(item.seconds for item in missing))}"


def require_room(found: Iterable[Forecast], plan: Plan, rates: Rates) -> None:
    """Check that every job fits the device.

    Raises:
        UserError: one does not; the largest is named.
    """
    large = sorted((item for item in found if not item.fits), key=lambda item: item.memory)
    if not large:
        return
    worst = large[-1]
    names = [row.experiment.id for row in plan.rows if worst.job in row.jobs] or [worst.job.stage.rule]
    more = f" (and {len(large) - 1} more jobs)" if len(large) > 1 else ""
    raise UserError(
        f"plan: {names[0]} needs about {worst.memory / GIB:.0f} GiB and {rates.name} has"
        f" {rates.room / GIB:.0f} GiB for a job{more}; lower its tokens (sdtp.sweep.lengths,"
        " sdtp.evaluation.prompt_tokens, sdtp.saliency.tokens, sdtp.training.batch), or choose a smaller"
        " data type or model, or a larger device"
    )


def _line(items: list[Forecast]) -> str:
    largest = max(item.memory for item in items)
    mark = "" if all(item.fits for item in items) else "  DOES NOT FIT"
    seconds = sum(item.seconds for item in items)
    return f"{len(items):>4} {_time(seconds):>9} {largest / GIB:>6.1f} GiB{mark}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
