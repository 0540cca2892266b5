"""Results of downstream tasks: the arm's scores and the unpruned model's."""

from collections.abc import Iterable, Iterator
from typing import Any

from ablations.core.contract import Contract
from ablations.core.record import Digests, Environment
from ablations.specs.sdtp.evaluate import Series


class TaskScore(Contract):
    """One metric of one task."""

    task: str
    """Name of the task (or group of tasks)."""
    version: str | None
    """Version of the task, as its definition says; null for a group without one."""
    metric: str
    """Name of the metric."""
    filter: str
    """Filter that the answers went through (`none`)."""
    items: int | None
    """Items that were scored; null for a group."""
    arm: float
    """The pruned model's score."""
    arm_stderr: float | None
    """Its standard error, as the harness estimates it; null where it estimates none."""
    reference: float
    """The unpruned model's score."""
    reference_stderr: float | None
    """Its standard error."""


class Downstream(Contract):
    """Downstream tasks under one pruning configuration."""

    spec: Series
    """The pruning configuration, as one of its series gives it."""
    scores: tuple[TaskScore, ...]
    """Every metric of every task."""
    fewshot: int | None
    """Worked examples in each prompt; null leaves it to the task."""
    limit: int | None
    """Items of each task; null takes all."""
    chat_template: bool
    """Whether prompts went through the model's chat template."""
    lm_eval: str
    """Version of lm-evaluation-harness."""
    weight_layout: str
    """How the weights lie in memory for both models (`stock`, or the prepacking used)."""
    environment: Environment
    """Machine, software and settings of the evaluation."""
    digests: Digests
    """Digests of spec, code, inputs and pins of the pruning configuration."""


def scores_of(arm: dict[str, Any], reference: dict[str, Any]) -> Iterator[TaskScore]:
    """Pair the harness's results of the arm and of the unpruned model, one row per task and metric.

    Args:
        arm: Result of `lm_eval.simple_evaluate` for the arm.
        reference: Its result for the unpruned model.
    """
    for task, metrics in arm["results"].items():
        version = arm["versions"].get(task)
        items = arm["n-samples"].get(task)
        for key, value in metrics.items():
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr"):
                continue
            error = f"{metric}_stderr,{name}"
            unpruned = reference["results"][task]
            yield TaskScore(
                task=task,
                version=None if version is None else str(version),
                metric=metric,
                filter=name,
                items=items["effective"] if items else None,
                arm=value,
                arm_stderr=_number(metrics.get(error)),
                reference=unpruned[key],
                reference_stderr=_number(unpruned.get(error)),
            )


def as_text(scores: Iterable[TaskScore]) -> str:
    """A table for the terminal, one line per metric."""
    lines = [f"{'task':32}{'metric':24}{'items':>8}{'pruned':>18}{'unpruned':>18}"]
    for score in scores:
        metric = score.metric if score.filter == "none" else f"{score.metric} ({score.filter})"
        arm = _with_error(score.arm, score.arm_stderr)
        reference = _with_error(score.reference, score.reference_stderr)
        lines.append(f"{score.task:32}{metric:24}{score.items or '':>8}{arm:>18}{reference:>18}")
    return "\n".join(lines)


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} +- {error:.3f}"


def _number(value: object) -> float | None:
    """The value, or None where the harness writes N/A for a missing estimate."""
    return value if isinstance(value, float) else None
