"""Decoding experiments as arms of the benchmark."""

from collections.abc import Iterable

from ablations.study.contracts.benchmark import BenchmarkArm
from ablations.study.contracts.dynatree import ArmSpec
from ablations.study.files import canonical_json, sha256_text
from ablations.study.planning.jobs import DIGEST_LENGTH, Job
from ablations.study.planning.rows import Row

DRAFTED_FROM = ("draft", "ngram", "distilled", "costs")
"""Inputs of a decoding job that its drafter and its trees are made of."""


def distinct(rows: Iterable[Row]) -> dict[str, Row]:
    """Decoding experiments by the digest of their job; of those that share one, the first."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row.jobs[0].digest, row)
    return found


def benchmark_arm(row: Row) -> tuple[str, BenchmarkArm, dict[str, Job]]:
    """A decoding experiment as an arm.

    Returns:
        A name that follows from what the arm does, so that renaming an experiment measures nothing; the arm;
        and the jobs that make what it drafts from, by their names in the benchmark.
    """
    (job,) = row.jobs
    # A text of the prompts is no input of an arm; what two arms draft from may differ.
    made = {name: job.inputs[name] for name in DRAFTED_FROM if name in job.inputs}
    names = {name: f"{name}_{artefact.digest}" for name, artefact in made.items()}
    chosen = {field: getattr(job.spec, field) for field in ArmSpec.model_fields}
    arm = BenchmarkArm(**chosen, inputs=names, prompts=row.experiment.budget.get("prompts"))
    digest = sha256_text(canonical_json(arm.model_dump(mode="json")))[:DIGEST_LENGTH]
    return f"arm_{digest}", arm, {names[name]: artefact for name, artefact in made.items()}
