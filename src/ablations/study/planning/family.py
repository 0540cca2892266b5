"""The confirmatory family of a study: what it predicts, and the plan that was made before its results."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.core.block import cover
from ablations.core.contract import Contract
from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_text, write_text_if_changed
from ablations.evidence.expectations import Confirmatory
from ablations.evidence.inputs import FamilyPlan
from ablations.specs.sdtp.record import EvaluateSpec
from ablations.study.config.study import StudyConfig
from ablations.study.differences import leaf_changes
from ablations.study.planning.jobs import DIGEST_LENGTH, Row
from ablations.study.planning.stages import BLOCKS, RECORD, RESULTS

PLANS = RESULTS / "family.json"
"""Plans of families that have results, in the order in which they were made."""

LATE = "written down after its first results"
"""What is said of a family whose plan does not precede its results."""


class _Plan(Contract):
    """A family as it was planned.

    Attributes:
        digest: Digest of the content.
        planned: Date, ISO 8601.
        content: What was planned.
        results: Digests of the series and records of its experiments.
        late: Whether some of them were there already.
    """

    digest: str
    planned: str
    content: dict[str, Any]
    results: tuple[str, ...]
    late: bool = False


def confirmatory_rows(rows: Iterable[Row], confirmatory: Confirmatory) -> list[Row]:
    """Rows of the family."""
    ids = {*confirmatory.sdtp, *confirmatory.dynatree}
    return [row for row in rows if row.experiment.id in ids]


def is_timed(row: Row) -> bool:
    """Whether the speed of an experiment is measured; otherwise it is counted."""
    spec = row.jobs[0].spec
    return not isinstance(spec, EvaluateSpec) or spec.timing is not None


def require_predictions(family: Iterable[Row]) -> None:
    """Check that each experiment of the family has a prediction that can be decided.

    Raises:
        UserError: one has none that is measured.
    """
    for row in family:
        experiment, expect = row.experiment, row.experiment.expect
        measured: list[str | None] = [expect.text, expect.retrieval]
        if experiment.method == "sdtp" and expect.quality != "crash":
            measured.append(expect.quality)
        if is_timed(row):
            measured += [expect.speed, *expect.above, *expect.below, *expect.about]
        if not any(measured):
            raise UserError(
                f"paper.confirmatory.{experiment.method}: {experiment.id!r} predicts nothing that is measured"
                f" ({experiment.method}.ablations.{experiment.id}.expect); say what, or take it out"
            )


def recorded_plan(family: Sequence[Row], config: StudyConfig) -> FamilyPlan | None:
    """The plan of a family as it was when its first results were measured; it is written down until then.

    Whether a plan precedes results is told by the results: of the plans that were written down, the earliest
    that has one of this family's counts. Renaming a study, or running another one in the same folder, changes
    nothing.

    Returns:
        Digest and date of that plan, and what changed since; None where there is no family.
    """
    if not family:
        return None
    content = _content(family, config)
    digest = sha256_text(canonical_json(content))[:DIGEST_LENGTH]
    jobs = [job for row in family for job in row.jobs]
    results = {series.digest for job in jobs for series in job.series.values()} | {job.digest for job in jobs}
    there = {result for result in results if _there(result)}
    plans = _read()
    first = next((plan for plan in plans if there & {*plan.results}), None)
    if first is None:
        # The same plan may have been written down before, and nothing measured since.
        planned = next((plan.planned for plan in plans if plan.digest == digest), _today())
        first = _Plan(digest=digest, planned=planned, content=content, results=(), late=bool(there))
        plans.append(first)
    kept = {result for result in first.results if _there(result)} | results
    current = first.model_copy(update={"results": tuple(sorted(kept))})
    # A plan of which nothing was measured is none.
    kept_plans = [
        current if plan is first else plan
        for plan in plans
        if plan is first or any(map(_there, plan.results))
    ]
    write_text_if_changed(PLANS, json.dumps([plan.model_dump() for plan in kept_plans], indent=1) + "\n")
    changes = [LATE] * first.late + [*leaf_changes("", first.content, content)]
    return FamilyPlan(digest=digest, planned=first.planned, changed=tuple(changes))


def _content(family: Iterable[Row], config: StudyConfig) -> dict[str, Any]:
    evaluation, looks = config.sdtp.evaluation, config.paper.looks
    counts: dict[str, Any] = {
        "timed": evaluation.timing.documents,
        "prompts": {kind: prompts.count for kind, prompts in config.dynatree.prompts.items()},
        "timed_prompts": config.dynatree.decoding.timed,
    }
    if not looks:
        # Those of a look are declared; later looks may follow.
        counts["documents"] = evaluation.documents
        counts["retrieval"] = evaluation.retrieval.count if evaluation.retrieval else 0
    predictions = {
        row.experiment.id: {
            "versus": row.experiment.versus,
            **row.experiment.expect.model_dump(mode="json", exclude_defaults=True),
        }
        for row in family
    }
    content = {
        "predictions": predictions,
        "thresholds": config.paper.thresholds.model_dump(mode="json"),
        "looks": [look.model_dump(mode="json") for look in looks],
        "counts": counts,
        "seeds": [*config.sdtp.seeds],
    }
    return content


def _there(digest: str) -> bool:
    """Whether a series has a block, or a record is joined."""
    spans, crashed = cover(Path(BLOCKS.format(digest=digest)))
    return bool(spans) or crashed is not None or Path(RECORD.format(digest=digest)).exists()


def _read() -> list[_Plan]:
    """Plans that were written down; none where the file is missing or damaged."""
    try:
        return [_Plan.model_validate(entry) for entry in json.loads(PLANS.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError, ValidationError):
        return []


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
