"""What a study's experiments are: measured as planned now, stale and why, or never run."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan
from ablations.study.planning.rows import Row
from ablations.study.planning.stages import RECORD, SPEC

State = Literal["fresh", "stale", "never run"]

BENCHMARKS = Path("benchmarks")
# Differences named of one job; more are counted.
NAMED = 2


@dataclass(frozen=True)
class Status:
    """State of one experiment.

    Attributes:
        id: The experiment.
        state: ``fresh`` if the records of all its seeds are there.
        why: What makes it stale, as a short difference; empty unless stale.
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
        jobs: Measuring and preparing jobs without a result.
        seconds: Their time, by the median of measured jobs of the same rule.
        unknown: Jobs among them whose rule was never timed here; they are not in `seconds`.
    """

    jobs: int
    seconds: float
    unknown: int


def statuses(plan: Plan) -> list[Status]:
    """The state of every experiment of a study, in its order."""
    measured = _records()
    sharing: dict[str, list[str]] = defaultdict(list)
    for row in plan.rows:
        sharing[row.jobs[0].digest].append(row.experiment.id)
    # A record that experiments share bears the label of one of them.
    return [
        _status(row, [record for name in sharing[row.jobs[0].digest] for record in measured[name]])
        for row in plan.rows
    ]


def cost(plan: Plan) -> Cost:
    """What the missing results that the paper needs would cost, artefacts and sweeps included."""
    missing = [job for job in plan.paper_jobs.values() if not job.path.exists()]
    typical: dict[str, float | None] = {}
    for rule in {job.stage.rule for job in missing}:
        seconds = list(_benchmarks(rule))
        typical[rule] = median(seconds) if seconds else None
    known = [found for job in missing if (found := typical[job.stage.rule]) is not None]
    return Cost(len(missing), sum(known), len(missing) - len(known))


def _status(row: Row, records: list[dict[str, Any]]) -> Status:
    missing = [job for job in row.jobs if not job.path.exists()]
    planned = {job.digest for job in row.jobs}
    own = [record for record in records if record["digests"]["job"] in planned]
    last = max(own or records, key=lambda record: record["environment"]["measured_at"], default=None)
    where = last["environment"] if last else {}
    state: State = "fresh" if not missing else "stale" if last else "never run"
    return Status(
        id=row.experiment.id,
        state=state,
        why=_why(missing[0], last["digests"]["job"]) if missing and last else "",
        measured=where.get("measured_at", "")[:10] or None,
        device=where.get("device"),
        seconds=where.get("seconds"),
    )


def _records() -> dict[str, list[dict[str, Any]]]:
    """Label, digests and environment of all records, by label."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(Path(RECORD).parent.glob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            kept = {name: record[name] for name in ("label", "digests", "environment")}
        except (ValueError, KeyError, TypeError):
            # The paper rules name a damaged record; here it is one that was never measured.
            continue
        found[kept["label"]].append(kept)
    return found


def _why(job: Job, before: str) -> str:
    """What tells a planned job from the one of digest `before`, as far as its spec file is still there."""
    try:
        old = json.loads(Path(SPEC.format(digest=before)).read_bytes())
    except (OSError, ValueError):
        return "its spec of then is gone"
    differences = list(_differences(job, old))
    more = f" and {len(differences) - NAMED} more" if len(differences) > NAMED else ""
    return "; ".join(differences[:NAMED]) + more


def _differences(job: Job, old: dict[str, Any]) -> Iterator[str]:
    new = job.file.model_dump(mode="json")
    if new["spec_digest"] != old["spec_digest"]:
        yield from _changes("", old["spec"], new["spec"])
    if new["code_digest"] != old["code_digest"]:
        yield f"code of {job.stage.module}"
    for name in sorted({*new["pins"], *old["pins"]}):
        one, other = old["pins"].get(name, "none"), new["pins"].get(name, "none")
        if one != other:
            yield f"{name} {one} -> {other}"
    for name, digest in new["input_digests"].items():
        before = old["input_digests"].get(name)
        if before == digest:
            continue
        if before is None:
            yield f"new input {name}"
        elif name in job.inputs:
            yield f"{name}: {_why(job.inputs[name], before)}"
        else:
            yield f"another {name}"
    yield from (f"no input {name}" for name in old["input_digests"] if name not in new["input_digests"])


def _changes(key: str, old: Any, new: Any) -> Iterator[str]:
    """Changed leaves of nested maps as ``key old -> new``."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{key} {_short(old)} -> {_short(new)}"
        return
    for name in [*new, *(name for name in old if name not in new)]:
        yield from _changes(f"{key}.{name}" if key else name, old.get(name), new.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _benchmarks(rule: str) -> Iterator[float]:
    """Seconds of the finished jobs of a rule, as Snakemake's benchmark files have them."""
    for path in (BENCHMARKS / rule).glob("*.tsv"):
        with path.open(encoding="utf-8") as file:
            yield from (float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
