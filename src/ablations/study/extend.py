"""Which open predictions go on to the next declared look, so that a given time decides most of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from ablations.core.errors import UserError
from ablations.evidence.decisions import Decision
from ablations.evidence.expectations import Look
from ablations.study.planning.extension import Extended
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan
from ablations.study.prospects import ITEMS, Open, confirmatory, duration, measured, named
from ablations.study.timings import item_times

_NOTHING = 1e-9
"""Seconds that stand for none where chances are divided by them."""

HOPELESS = 0.05
"""A prediction is not measured further if such an effect were decided in no larger share of studies."""


class Step(NamedTuple):
    """An open prediction at the next look.

    Attributes:
        decision: What it came to so far.
        measure: `text` or `retrieval`.
        there: Documents or prompts so far.
        items: Documents or prompts of the look.
        chance: Share of studies in which an effect as large as the one observed would be decided there.
        series: The series that it needs more of: its experiment's and that of its comparator, of each seed.
    """

    decision: Decision
    measure: str
    there: int
    items: int
    chance: float
    series: tuple[Job, ...]


class Choice(NamedTuple):
    """What goes on.

    Attributes:
        steps: Predictions that go on, the ones that decide most in their time first.
        left: Predictions that do not.
        closed: Open predictions that no declared look adds to.
        seconds: Time of what is added, by what was done here.
    """

    steps: tuple[Step, ...]
    left: tuple[Step, ...]
    closed: tuple[Decision, ...]
    seconds: float

    @property
    def series(self) -> dict[str, Extended]:
        """The series that go on, by digest."""
        return {
            job.digest: Extended(planned=cast(int, job.count), items=step.items)
            for step in self.steps
            for job in step.series
        }


def choose(plan: Plan, minutes: float) -> Choice:
    """Choose open predictions for the next look, by their chance over the time that they add.

    What goes on may be chosen by the results so far: an effect that is not looked at is not decided.

    Args:
        plan: A study whose confirmatory experiments are measured.
        minutes: Most time to add.

    Raises:
        UserError: the study has no looks, or one of its confirmatory experiments is not measured.
    """
    settings, times = plan.config.paper, item_times()
    if not settings.looks:
        raise UserError(
            "paper.looks: none are declared, and more documents would spend the level twice; declare looks"
            " before measuring"
        )
    arms = measured(plan.paper_plan(""))
    for row in plan.family:
        if not all(job.path.exists() for job in row.jobs):
            raise UserError(f"extend: {row.experiment.id} is not measured yet; run snakemake first")
    remaining = Open(arms, settings, confirmatory(arms, settings))
    waiting, closed = [], []
    for decision in remaining.decisions:
        step = _next(plan, remaining, decision, settings.looks)
        if step is None or not all(job.digest in times for job in step.series):
            closed.append(decision)
        else:
            waiting.append(step)
    chosen, seconds = spend(waiting, {digest: time.seconds for digest, time in times.items()}, 60 * minutes)
    left = tuple(step for step in waiting if step not in chosen)
    return Choice(tuple(chosen), left, tuple(closed), seconds)


def spend(waiting: Iterable[Step], times: Mapping[str, float], most: float) -> tuple[list[Step], float]:
    """Choose one prediction after the other while time is left; series of those before are paid for.

    Args:
        waiting: Predictions that could go on.
        times: Seconds for one item of each series, by digest.
        most: Most seconds.

    Returns:
        Predictions in the order of choice, and their seconds.
    """
    promising = [step for step in waiting if step.chance > HOPELESS]
    chosen: list[Step] = []
    wanted: dict[str, int] = {}
    spent = 0.0

    def added(step: Step) -> float:
        return sum(
            times[job.digest] * max(0, step.items - max(job.count or 0, wanted.get(job.digest, 0)))
            for job in step.series
        )

    while fitting := [step for step in promising if step not in chosen and spent + added(step) <= most]:
        best = max(fitting, key=lambda step: step.chance / max(added(step), _NOTHING))
        spent += added(best)
        wanted |= {job.digest: best.items for job in best.series}
        chosen.append(best)
    return chosen, spent


def told(choice: Choice) -> Iterator[str]:
    """Lines of text: what goes on and in how much time, and what does not."""
    if choice.steps:
        count = len(choice.steps)
        go_on = "predictions go on" if count > 1 else "prediction goes on"
        yield f"{count} {go_on}, in about {duration(choice.seconds)}:"
    else:
        yield "nothing goes on"
    for step in choice.steps:
        yield f"  {_line(step)}"
    if choice.left:
        yield "not measured further, for want of time or because hardly any such study would decide it:"
    for step in choice.left:
        yield f"  {_line(step)}"
    if choice.closed:
        names = ", ".join(map(named, choice.closed))
        yield f"open, and not added to by a declared look: {names}"


def _line(step: Step) -> str:
    return (
        f"{named(step.decision)}: {step.items} {ITEMS[step.measure]} ({step.there} so far);"
        f" decided in {step.chance:.0%} of such studies"
    )


def _next(plan: Plan, remaining: Open, decision: Decision, looks: Sequence[Look]) -> Step | None:
    """A prediction at its next look; None where no look is left, or looks do not add to it."""
    measure = remaining.measure(decision)
    standing = remaining.standing(decision)
    if measure not in ("text", "retrieval") or standing is None:
        return None
    asked = {"text": "documents", "retrieval": "retrieval"}[measure]
    look = next((look for look in looks if getattr(look, asked) > standing.n), None)
    if look is None:
        return None
    names = (decision.experiment, decision.against)
    series = tuple(job.inputs[measure] for name in names if name is not None for job in plan.row(name).jobs)
    items = getattr(look, asked)
    chance = standing.chance(items, remaining.level(decision, look.alpha))
    return Step(decision, measure, standing.n, items, chance, series)
