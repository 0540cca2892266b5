"""What a study's experiments are: measured as planned now, stale and why, or never run."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ablations.study.benchmarks import seconds_by_digest
from ablations.study.planning.damage import find_damage
from ablations.study.planning.inputs import due_jobs
from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan
from ablations.study.planning.rows import Row
from ablations.study.planning.stages import RECORD
from ablations.study.why import Determined, why

State = Literal["fresh", "stale", "damaged", "never run"]


@dataclass(frozen=True)
class Status:
    """State of one experiment.

    Attributes:
        id: The experiment.
        state: ``fresh`` if the records of all its seeds are there.
        why: What makes it stale, as a short difference, or which record cannot be read; empty otherwise.
        measured: Date of its last measurement, fresh or not; None if there was none.
        device: Where that was.
        seconds: How long it took.
    """

    id: str
    state: State
    why: str
    measured: str | None
    device: str | None
    seconds: float | None


@dataclass(frozen=True)
class Cost:
    """What running everything that is missing would cost.

    Attributes:
        jobs: Measuring and preparing jobs that would run: those whose result is missing or damaged, and what
            they need.
        seconds: Their time, by the median of measured jobs of the same rule.
        unknown: Jobs among them whose rule was never timed here; they are not in `seconds`.
        damaged: Damaged files among the artefacts that the paper was made of.
    """

    jobs: int
    seconds: float
    unknown: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class _Measured:
    """What is told of a record: its label, what determined it, where and when it was measured."""

    label: str | None
    determined: Determined
    environment: dict[str, Any]


def statuses(plan: Plan) -> list[Status]:
    """The state of every experiment of a study, in its order."""
    by_digest = _records()
    by_label: dict[str | None, list[_Measured]] = defaultdict(list)
    for record in by_digest.values():
        by_label[record.label].append(record)
    sharing: dict[str, list[str]] = defaultdict(list)
    for row in plan.rows:
        sharing[row.jobs[0].digest].append(row.experiment.id)
    # Records are named by digests, so a renamed experiment finds its own; a stale one is known by its label,
    # which may be that of an experiment it shared a record with.
    return [
        _status(
            row,
            plan,
            by_digest,
            [record for name in sharing[row.jobs[0].digest] for record in by_label[name]],
        )
        for row in plan.rows
    ]


def cost(plan: Plan) -> Cost:
    """What the missing results that the paper needs would cost, artefacts and sweeps included."""
    damage = find_damage(plan.paper_jobs.values())
    due = due_jobs(plan.paper_results, damage).values()
    typical: dict[str, float | None] = {}
    for rule in {job.stage.rule for job in due}:
        seconds = seconds_by_digest(rule)
        typical[rule] = median(seconds.values()) if seconds else None
    known = [found for job in due if (found := typical[job.stage.rule]) is not None]
    return Cost(len(due), sum(known), len(due) - len(known), tuple(damage.values()))


def _status(row: Row, plan: Plan, by_digest: dict[str, _Measured], labelled: list[_Measured]) -> Status:
    missing = [job for job in row.jobs if not job.path.exists()]
    damaged = [str(job.path) for job in row.jobs if job.path.exists() and job.digest not in by_digest]
    own = [by_digest[job.digest] for job in row.jobs if job.digest in by_digest]
    last = max(own or _alike(row.jobs[0], labelled), key=_moment, default=None)
    where = last.environment if last else {}
    state: State = "damaged" if damaged else "fresh" if not missing else "stale" if last else "never run"
    reason = ""
    if damaged:
        reason = f"{damaged[0]} cannot be read; delete it"
    elif missing and last:
        reason = "not all of its seeds were measured" if own else why(missing[0], last.determined, plan)
    return Status(
        id=row.experiment.id,
        state=state,
        why=reason,
        measured=where.get("measured_at", "")[:10] or None,
        device=where.get("device"),
        seconds=where.get("seconds"),
    )


def _moment(record: _Measured) -> str:
    return record.environment["measured_at"]


def _alike(job: Job, records: list[_Measured]) -> list[_Measured]:
    """Records of the job's own seed, as far as they tell: speed is measured on the first seed alone."""
    timed = getattr(job.spec, "timing", None) is not None
    return [
        record for record in records if (record.determined.spec.get("timing") is not None) == timed
    ] or records


def _records() -> dict[str, _Measured]:
    """All records that can be read, by digest, their samples left out."""
    found = {}
    for path in sorted(Path(RECORD).parent.glob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            environment = dict(record["environment"])
            datetime.fromisoformat(environment["measured_at"])
            float(environment["seconds"])
            found[path.stem] = _Measured(record["label"], Determined.of_record(record), environment)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
