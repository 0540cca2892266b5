"""State of a study: experiments that are fresh, stale (and why) or never run, and jobs left to run."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ablations.study.planning.freshness import due_jobs, find_damage
from ablations.study.planning.jobs import Job, Row
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import CODE, RECORD, SPEC
from ablations.study.timings import seconds_by_digest

State = Literal["fresh", "stale", "damaged", "never run"]

SHOWN_DIFFERENCES = 2
"""Differences that a reason names; further ones are counted."""


@dataclass(frozen=True)
class Status:
    """State of one experiment.

    Attributes:
        id: The experiment.
        state: ``fresh`` if the records of all its seeds are there.
        reason: Why it is stale, or which record cannot be read; empty otherwise.
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
    """Jobs that the paper of a study still needs.

    Attributes:
        jobs: Jobs that would run: those whose result is missing or damaged, with the inputs that they lack.
        seconds: Their time, by the median of finished jobs of the same rule.
        unknown: Jobs whose rule was never timed here; `seconds` leaves them out.
        damaged: Damaged files of artefacts.
    """

    jobs: int
    seconds: float
    unknown: int
    damaged: tuple[str, ...]


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
    """The jobs that the paper still needs, those of artefacts and sweeps included."""
    damage = find_damage(plan.paper_jobs.values())
    due = due_jobs(plan.paper_results, damage).values()
    finished = {rule: seconds_by_digest(rule).values() for rule in {job.stage.rule for job in due}}
    typical = {rule: median(seconds) for rule, seconds in finished.items() if seconds}
    timed = [typical[job.stage.rule] for job in due if job.stage.rule in typical]
    return RemainingWork(len(due), sum(timed), len(due) - len(timed), tuple(damage.values()))


def _status(row: Row, plan: Plan, by_digest: dict[str, _Measurement], labelled: list[_Measurement]) -> Status:
    missing = [job for job in row.jobs if not job.path.exists()]
    damaged = [str(job.path) for job in row.jobs if job.path.exists() and job.digest not in by_digest]
    fresh = [by_digest[job.digest] for job in row.jobs if job.digest in by_digest]
    last = max(fresh or _timed_alike(row.jobs[0], labelled), key=_moment, default=None)
    environment = last.environment if last else {}
    state: State = "damaged" if damaged else "fresh" if not missing else "stale" if last else "never run"
    reason = ""
    if damaged:
        reason = f"{damaged[0]} cannot be read; delete it"
    elif missing and last:
        reason = (
            "not all of its seeds were measured" if fresh else _changes(missing[0], last.determinants, plan)
        )
    return Status(
        id=row.experiment.id,
        state=state,
        reason=reason,
        measured=environment.get("measured_at", "")[:10] or None,
        device=environment.get("device"),
        seconds=environment.get("seconds"),
    )


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


def _changes(job: Job, before: _Determinants, plan: Plan) -> str:
    """What differs between a planned job and an earlier result: spec, code, inputs and environment."""
    differences = list(_differences(job, before, plan))
    more = len(differences) - SHOWN_DIFFERENCES
    text = "; ".join(differences[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
    return text or "its record is gone"


def _differences(job: Job, before: _Determinants, plan: Plan) -> Iterator[str]:
    now = _Determinants.of_spec(job.file.model_dump(mode="json"))
    yield from (f"spec {change}" for change in _leaf_changes("", before.spec, now.spec))
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
    try:
        before = _Determinants.of_spec(json.loads(Path(SPEC.format(digest=old_digest)).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{name}: its spec of then is gone"
    return f"{name}: {_changes(job.inputs[name], before, plan)}"


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


def _leaf_changes(key: str, old: Any, new: Any) -> Iterator[str]:
    """Changed leaves of nested maps as ``key old -> new``."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{key} {_short(old)} -> {_short(new)}"
        return
    for name in [*new, *(name for name in old if name not in new)]:
        yield from _leaf_changes(f"{key}.{name}" if key else str(name), old.get(name), new.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
