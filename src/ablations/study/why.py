"""Why a planned job has no result yet: what tells it from the one that was run before."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.study.planning.jobs import Job
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import CODE, SPEC

NAMED = 2
"""Differences named of one job; more are counted."""


@dataclass(frozen=True)
class Determined:
    """What determined a result.

    Attributes:
        spec: Spec of the job.
        code: Digest of its code.
        inputs: Digest of each input.
        pins: Pinned versions it was computed with.
    """

    spec: dict[str, Any]
    code: str
    inputs: dict[str, str]
    pins: dict[str, str]

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Determined":
        """As a record has it.

        Raises:
            KeyError, TypeError, ValueError: it is no record.
        """
        digests = record["digests"]
        return cls(dict(record["spec"]), digests["code"], dict(digests["inputs"]), dict(digests["pins"]))

    @classmethod
    def of_spec(cls, file: dict[str, Any]) -> "Determined":
        """As a spec file has it.

        Raises:
            KeyError, TypeError, ValueError: it is no spec file.
        """
        return cls(dict(file["spec"]), file["code_digest"], dict(file["input_digests"]), dict(file["pins"]))


def why(job: Job, before: Determined, plan: Plan) -> str:
    """What tells a planned job from the one that was run before: spec, code, inputs and environment."""
    differences = list(_differences(job, before, plan))
    more = f" and {len(differences) - NAMED} more" if len(differences) > NAMED else ""
    return "; ".join(differences[:NAMED]) + more or "its record is gone"


def _differences(job: Job, before: Determined, plan: Plan) -> Iterator[str]:
    now = Determined.of_spec(job.file.model_dump(mode="json"))
    yield from (f"spec {change}" for change in _changes("", before.spec, now.spec))
    if now.code != before.code:
        yield _code_change(job, before.code, plan)
    for name in sorted({*now.pins, *before.pins}):
        one, other = before.pins.get(name, "none"), now.pins.get(name, "none")
        if one != other:
            yield f"environment {name} {one} -> {other}"
    for name, digest in now.inputs.items():
        old = before.inputs.get(name)
        if old is None:
            yield f"new input {name}"
        elif old != digest:
            yield f"input {_input_change(job, name, old, plan)}"
    yield from (f"no input {name}" for name in before.inputs if name not in now.inputs)


def _input_change(job: Job, name: str, old: str, plan: Plan) -> str:
    if name not in job.inputs:
        return f"{name}: other bytes"
    try:
        before = Determined.of_spec(json.loads(Path(SPEC.format(digest=old)).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{name}: its spec of then is gone"
    return f"{name}: {why(job.inputs[name], before, plan)}"


def _code_change(job: Job, old: str, plan: Plan) -> str:
    """The modules that changed, where it is known what they were."""
    try:
        before = dict(json.loads(Path(CODE.format(digest=old)).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return f"code of {job.stage.module}"
    now = plan.sources.code.parts(job.stage.module)
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    more = f" and {len(names) - NAMED} more modules" if len(names) > NAMED else ""
    return f"code {', '.join(name.removeprefix('ablations.') for name in names[:NAMED])}{more}"


def _changes(key: str, old: Any, new: Any) -> Iterator[str]:
    """Changed leaves of nested maps as ``key old -> new``."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{key} {_short(old)} -> {_short(new)}"
        return
    for name in [*new, *(name for name in old if name not in new)]:
        yield from _changes(f"{key}.{name}" if key else str(name), old.get(name), new.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
