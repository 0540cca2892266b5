"""Jobs that ran in this folder: their specs, times and memory, as Snakemake's benchmark files have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ablations.study.benchmarks import measurements
from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Dtype
from ablations.study.errors import UserError
from ablations.study.estimate import dynatree, sdtp  # noqa: F401 (they register what their jobs need)
from ablations.study.estimate.demand import Demand, demand
from ablations.study.estimate.shapes import ModelShape, shape_of_folder
from ablations.study.job import JobFile
from ablations.study.planning.stages import MODEL, SPEC, STAGES, Stage


@dataclass(frozen=True)
class Finished:
    """A job that ran to the end.

    Attributes:
        rule: Its rule.
        digest: Name of its result.
        dtype: What it computed in; None where it ran no model.
        demand: What the estimate says that it needed.
        seconds: What it took, from start to end.
        memory: Most memory that it held, bytes.
    """

    rule: str
    digest: str
    dtype: Dtype | None
    demand: Demand
    seconds: float
    memory: float


def finished() -> list[Finished]:
    """Every finished job in the working directory whose spec and models are still there."""
    # A share of an evaluation did not do all of the work that its spec says.
    whole = ((stage, *found) for stage in STAGES for found in measurements(stage.rule) if "." not in found[0])
    return [job for stage, digest, measured in whole if (job := _finished(stage, digest, measured))]


def _finished(stage: Stage, digest: str, measured: Mapping[str, str]) -> Finished | None:
    file = _job_file(stage, digest)
    if file is None:
        return None
    try:
        shapes: dict[str, ModelShape] = {
            name: shape_of_folder(Path(needed).parent)
            for name, needed in file.inputs.items()
            if Path(needed) == MODEL.path(Path(needed).parent.name)
        }
        if stage == MODEL:
            shapes = {"model": shape_of_folder(stage.path(digest).parent)}
    except UserError:
        return None
    inputs = {name: spec for name, needed in file.inputs.items() if (spec := _input_spec(Path(needed)))}
    if len(inputs) < len(file.inputs):
        return None
    compute = getattr(file.spec, "compute", None)
    return Finished(
        rule=stage.rule,
        digest=digest,
        dtype=compute.dtype if compute else None,
        demand=demand(file.spec, shapes, inputs),
        seconds=float(measured["s"]),
        # `-` where Snakemake could not tell.
        memory=float(measured["max_rss"]) * 2**20 if measured["max_rss"] not in ("-", "NA") else 0.0,
    )


def _input_spec(result: Path) -> Contract | None:
    """Spec of an input artefact, by the path of its manifest."""
    digest = result.parent.name
    stage = next((stage for stage in STAGES if stage.path(digest) == result), None)
    file = _job_file(stage, digest) if stage else None
    return file.spec if file else None


def _job_file(stage: Stage, digest: str) -> JobFile | None:
    """The job's file; None where it is gone or of another version of this project."""
    try:
        content = Path(SPEC.format(digest=digest)).read_bytes()
        return JobFile[stage.spec].model_validate_json(content)  # type: ignore[name-defined]
    except (OSError, ValidationError):
        return None
