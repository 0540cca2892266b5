"""What planned jobs need: their specs with the shapes of their models."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablations.study.estimate import dynatree, sdtp  # noqa: F401 (they register what their jobs need)
from ablations.study.estimate.demand import Demand, demand
from ablations.study.estimate.shapes import ModelShape, shape_of_job
from ablations.study.planning.jobs import Job


def job_demand(job: Job, known: Mapping[str, Any]) -> Demand:
    """What a planned job needs.

    Args:
        job: The job.
        known: Fields of ``config.json`` of checkpoints that are not here yet, by name.

    Raises:
        UserError: the size of a model is not known.
    """
    shapes = dict(_shapes(job, known))
    return demand(job.spec, shapes, {name: needed.spec for name, needed in job.inputs.items()})


def _shapes(job: Job, known: Mapping[str, Any]) -> Iterator[tuple[str, ModelShape]]:
    if job.stage.rule == "prepare_model":
        yield "model", shape_of_job(job, known)
    for name, needed in job.inputs.items():
        if needed.stage.rule == "prepare_model":
            yield name, shape_of_job(needed, known)
