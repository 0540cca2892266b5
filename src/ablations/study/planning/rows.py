"""Rows of a study: an experiment as the paper sees it, and the jobs that measure it."""

from dataclasses import dataclass
from typing import Any

from ablations.study.changes import Resolved
from ablations.study.config.experiment import Ablation
from ablations.study.contracts.paper import Experiment, Method
from ablations.study.planning.jobs import Job


@dataclass(frozen=True)
class Row:
    """An experiment and the jobs that measure it, one per seed."""

    experiment: Experiment
    jobs: tuple[Job, ...]


def ablation_row(
    method: Method,
    name: str,
    ablation: Ablation,
    arm: Resolved,
    jobs: tuple[Job, ...],
    budget: dict[str, Any],
) -> Row:
    """The row of one entry of the configuration."""
    experiment = Experiment(
        id=name,
        method=method,
        title=ablation.title,
        section=ablation.section,
        step=ablation.step,
        change=arm.change,
        hypothesis=ablation.hypothesis,
        expect=ablation.expect,
        versus=arm.versus,
        records=tuple(str(job.path) for job in jobs),
        budget=budget,
    )
    return Row(experiment, jobs)
