"""State of a study: experiments that are fresh, unfinished, stale (and why) or never run, and work left."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ablations.core.block import cover
from ablations.study.differences import leaf_changes
from ablations.study.planning.freshness import due_jobs, find_damage
from ablations.study.planning.jobs import Job, Row
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import CODE, JOIN, RECORD, SPEC
from ablations.study.timings import PastTimes

State = Literal["fresh", "unfinished", "stale", "damaged", "never run"]

SHOWN_DIFFERENCES = 2
"""Differences that a reason names; further ones are counted."""


@dataclass(frozen=True)
class Status:
    """State of one experiment.

    Attributes:
        id: The experiment.
        state: ``fresh`` if the records of all its seeds are there; ``unfinished`` if what they are joined
            from is measured in part, or they are only to be joined.
        reason: Why it is stale, what is missing, or which record cannot be read; empty otherwise.
        measured: Date of its last measurement, fresh or stale; None if it was never measured.
        device: Device of that measurement.
        seconds: Duration of that measurement.
    """

    id: str
    state: State
    reason: str
    measured: str | None
    device: str | None
    seconds: float | None


@dataclass(frozen=True)
class RemainingWork:
    """What the paper of a study still needs.

    Attributes:
        experiments: Experiments without all of their records.
        blocks: Missing blocks of series.
        jobs: Other jobs that would run (artefacts, sweeps, grids): those whose result is missing or damaged,
            with the inputs that they lack.
        seconds: Time of all that, by what was done here.
        unknown: Panels and other jobs of a kind that was never timed here; `seconds` leaves them out.
        damaged: Damaged files of artefacts.
    """

    experiments: int
    blocks: int
    jobs: int
    seconds: float
    unknown: int
    damaged: tuple[str, ...]


class Blocks(NamedTuple):
    """Blocks of a series for the items that are wanted.

    Attributes:
        there: Blocks that are there.
        missing: Blocks that are missing.
    """

    there: int
    missing: int


@dataclass(frozen=True)
class _Determinants:
    """What determined a result.

    Attributes:
        spec: Spec of the job.
        code: Digest of its code.
        inputs: Digest of each input.
        pins: Pinned versions of what it computed with.
    """

    spec: dict[str, Any]
    code: str
    inputs: dict[str, str]
    pins: dict[str, str]

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "_Determinants":
        """From the content of a record.

        Raises:
            KeyError, TypeError, ValueError: it is no record.
        """
        digests = record["digests"]
        return cls(dict(record["spec"]), digests["code"], dict(digests["inputs"]), dict(digests["pins"]))

    @classmethod
    def of_spec(cls, file: dict[str, Any]) -> "_Determinants":
        """From the content of a spec file.

        Raises:
            KeyError, TypeError, ValueError: it is no spec file.
        """
        return cls(dict(file["spec"]), file["code_digest"], dict(file["input_digests"]), dict(file["pins"]))


@dataclass(frozen=True)
class _Measurement:
    """A record without its samples.

    Attributes:
        label: Id of the experiment when it was measured.
        determinants: What determined it.
        environment: Where and when it was measured.
    """

    label: str | None
    determinants: _Determinants
    environment: dict[str, Any]


def statuses(plan: Plan) -> list[Status]:
    """The state of every experiment of a study, in the order of the study."""
    by_digest = _measurements()
    by_label: dict[str | None, list[_Measurement]] = defaultdict(list)
    for measurement in by_digest.values():
        by_label[measurement.label].append(measurement)
    sharing: dict[str, list[str]] = defaultdict(list)
    for row in plan.rows:
        sharing[row.jobs[0].digest].append(row.experiment.id)
    # A fresh record is found by its digest, whatever the experiment was called then. A stale one is found by
    # its label, which may be the id of another experiment that shared the record.
    return [
        _status(
            row,
            plan,
            by_digest,
            [measurement for name in sharing[row.jobs[0].digest] for measurement in by_label[name]],
        )
        for row in plan.rows
    ]


def remaining_work(plan: Plan) -> RemainingWork:
    """What the paper still needs, artefacts and sweeps included."""
    damage = find_damage(plan.paper_jobs.values())
    due = due_jobs(plan.paper_results, damage).values()
    panels = plan.panels(plan.paper_results, damage)
    past = PastTimes()
    alone = [job for job in due if not job.stage.panel and job.stage is not JOIN]
    seconds = [*map(past.panel, panels), *map(past.job, alone)]
    timed = [each for each in seconds if each is not None]
    return RemainingWork(
        experiments=sum(not all(job.done for job in row.jobs) for row in plan.rows),
        blocks=sum(blocks(job, plan).missing for job in due if job.stage.has_blocks),
        jobs=len(alone) + sum(len(panel.jobs) for panel in panels if not panel.stage.has_blocks),
        seconds=sum(timed),
        unknown=len(seconds) - len(timed),
        damaged=tuple(damage.values()),
    )


def blocks(series: Job, plan: Plan) -> Blocks:
    """Blocks of a series that are there and missing; a crash among the wanted items is all that is wanted."""
    spans, crashed = cover(series.path)
    firsts = [first for first, _ in spans] + ([] if crashed is None else [crashed])
    there = sum(first < (series.count or 0) for first in firsts)
    return Blocks(there, len(series.missing(plan.config.panel.documents)))


def _status(row: Row, plan: Plan, by_digest: dict[str, _Measurement], labelled: list[_Measurement]) -> Status:
    missing = [job for job in row.jobs if not job.path.exists()]
    damaged = [str(job.path) for job in row.jobs if job.path.exists() and job.digest not in by_digest]
    fresh = [by_digest[job.digest] for job in row.jobs if job.digest in by_digest]
    last = max(fresh or _timed_alike(row.jobs[0], labelled), key=_moment, default=None)
    state: State = "fresh"
    reason = ""
    if damaged:
        state, reason = "damaged", f"{damaged[0]} cannot be read; delete it"
    elif missing:
        state, reason = _lack(missing, bool(fresh), last, plan)
    environment = last.environment if last else {}
    return Status(
        id=row.experiment.id,
        state=state,
        reason=reason,
        measured=environment.get("measured_at", "")[:10] or None,
        device=environment.get("device"),
        seconds=environment.get("seconds"),
    )


def _lack(
    records: list[Job], others: bool, last: _Measurement | None, plan: Plan
) -> tuple[Literal["unfinished", "stale", "never run"], str]:
    """State of an experiment that lacks records, and why.

    Args:
        records: Jobs of its missing records.
        others: Whether records of other seeds are there.
        last: An earlier measurement; None where there is none.
        plan: The study.
    """
    series = {job.digest: job for record in records for job in record.series.values()}.values()
    counts = {job.digest: blocks(job, plan) for job in series}
    missing = sum(count.missing for count in counts.values())
    if not missing:
        return "unfinished", "all of its blocks are there; its record is to be joined"
    lacking = f"{missing} of {missing + sum(count.there for count in counts.values())} blocks are missing"
    # A series without any block is another one than was measured before; one with some lacks items alone.
    if all(count.there for count in counts.values() if count.missing):
        return "unfinished", lacking
    new = {name: job for name, job in records[0].series.items() if not counts[job.digest].there}
    if others or not new:
        return "stale", f"not all of its seeds were measured; {lacking}"
    if last is None:
        return ("unfinished", lacking) if any(count.there for count in counts.values()) else ("never run", "")
    changes = {
        change: None
        for name, job in new.items()
        for change in _series_changes(job, name, last.determinants, plan)
    }
    return "stale", f"{_shown(changes) or 'its blocks are gone'}; {lacking}"


def _series_changes(series: Job, name: str, record: _Determinants, plan: Plan) -> Iterator[str]:
    """What differs between a planned series and the one that an earlier record was joined from."""
    if name not in record.inputs:
        yield f"{name} was not measured"
    elif (before := _planned_as(series, record.inputs[name])) is None:
        yield f"the spec of its {name} of then is gone"
    else:
        yield from _differences(series, before, plan)


def _measurements() -> dict[str, _Measurement]:
    """All readable records by digest, without their samples."""
    measurements = {}
    for path in sorted(Path(RECORD).parent.glob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            environment = dict(record["environment"])
            datetime.fromisoformat(environment["measured_at"])
            float(environment["seconds"])
            determinants = _Determinants.of_record(record)
            measurements[path.stem] = _Measurement(record["label"], determinants, environment)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return measurements


def _timed_alike(job: Job, measurements: list[_Measurement]) -> list[_Measurement]:
    """Measurements like the job: timed or not, as only the first seed is timed; all of them if none is."""
    timed = getattr(job.spec, "timing", None) is not None
    return [
        measurement
        for measurement in measurements
        if (measurement.determinants.spec.get("timing") is not None) == timed
    ] or measurements


def _moment(measurement: _Measurement) -> str:
    return measurement.environment["measured_at"]


def _shown(differences: Collection[str]) -> str:
    """The first of several differences, and how many there are besides."""
    more = len(differences) - SHOWN_DIFFERENCES
    return "; ".join([*differences][:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def _differences(job: Job, before: _Determinants, plan: Plan) -> Iterator[str]:
    now = _Determinants.of_spec(job.file.model_dump(mode="json"))
    yield from (f"spec {change}" for change in leaf_changes("", before.spec, now.spec))
    if now.code != before.code:
        yield _code_change(job, before.code, plan)
    for name in sorted({*now.pins, *before.pins}):
        old, new = before.pins.get(name, "none"), now.pins.get(name, "none")
        if old != new:
            yield f"environment {name} {old} -> {new}"
    for name, digest in now.inputs.items():
        old_digest = before.inputs.get(name)
        if old_digest is None:
            yield f"new input {name}"
        elif old_digest != digest:
            yield f"input {_input_change(job, name, old_digest, plan)}"
    yield from (f"no input {name}" for name in before.inputs if name not in now.inputs)


def _input_change(job: Job, name: str, old_digest: str, plan: Plan) -> str:
    if name not in job.inputs:
        return f"{name}: other bytes"
    before = _planned_as(job.inputs[name], old_digest)
    if before is None:
        return f"{name}: its spec of then is gone"
    return f"{name}: {_shown([*_differences(job.inputs[name], before, plan)])}"


def _planned_as(job: Job, digest: str) -> _Determinants | None:
    """What determined an earlier result of a job's kind; None where its spec is gone, or of another kind."""
    try:
        file = json.loads(Path(SPEC.format(digest=digest)).read_bytes())
        return _Determinants.of_spec(file) if file["module"] == job.stage.module else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _code_change(job: Job, old_digest: str, plan: Plan) -> str:
    """The modules that changed, where the note on the earlier code is still there."""
    try:
        before = dict(json.loads(Path(CODE.format(digest=old_digest)).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return f"code of {job.stage.module}"
    now = plan.sources.code.parts(job.stage.module)
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    more = len(names) - SHOWN_DIFFERENCES
    text = ", ".join(name.removeprefix("ablations.") for name in names[:SHOWN_DIFFERENCES])
    return f"code {text}" + (f" and {more} more modules" if more > 0 else "")
