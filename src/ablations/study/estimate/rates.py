"""Rates of a device: from its data sheet under stated assumptions, or fitted to the jobs that ran here."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from pydantic import PositiveFloat, ValidationError
from scipy.optimize import nnls

from ablations.core.contract import Contract
from ablations.core.errors import UserError
from ablations.core.job import JobFile
from ablations.core.panel import read_panel
from ablations.specs.lm import Dtype
from ablations.study.estimate.demand import ONCE, Demand, demand, numbers, side_by_side
from ablations.study.estimate.shapes import ModelShape, shape_of_folder
from ablations.study.estimate.work import BYTES
from ablations.study.planning.stages import JOIN, MODEL, PANEL, SPEC, STAGES, Stage
from ablations.study.timings import measurements


@dataclass(frozen=True)
class TimedJob:
    """A finished job or panel with its time and memory.

    Attributes:
        rule: Its rule.
        digest: Name of the job's result, or of the panel.
        dtype: Data type that it computed in; None where it ran no model.
        demand: Its estimated demand.
        seconds: Measured time from start to end.
        memory: Measured peak of its memory, bytes; 0 where it was not measured.
    """

    rule: str
    digest: str
    dtype: Dtype | None
    demand: Demand
    seconds: float
    memory: float


class Assumptions(Contract):
    """What is assumed of devices on which nothing was measured."""

    compute: PositiveFloat
    """Share of the peak that prefills reach."""
    bandwidth: PositiveFloat
    """Share of the peak that decoding reaches."""
    layer_seconds: PositiveFloat
    """Seconds of launching one layer."""
    job_seconds: PositiveFloat
    """Seconds of a job besides its work."""
    load_bytes: PositiveFloat
    """Bytes of a checkpoint read per second."""
    reserve: PositiveFloat
    """Share of the memory that no job gets."""


class Device(Contract):
    """A device by its data sheet."""

    name: str
    """What it is."""
    memory: PositiveFloat
    """Bytes."""
    flops: dict[Dtype, PositiveFloat]
    """Peak operations per second."""
    bandwidth: PositiveFloat
    """Peak bytes per second."""
    source: str
    """Where these numbers are from."""


class Devices(Contract):
    """The list of devices, `workflow/plan/devices.yaml`."""

    assumptions: Assumptions
    """What is assumed of all of them."""
    devices: dict[str, Device]
    """Devices by name."""


class Rates(ABC):
    """Speed and memory of a device.

    Attributes:
        name: Name of the device.
        room: Bytes that a job may hold.
        basis: Where the rates come from, lines of text.
    """

    name: str
    room: float
    basis: Sequence[str]

    @abstractmethod
    def seconds(self, rule: str, dtype: Dtype | None, demand: Demand) -> float:
        """Expected seconds of a job, from start to end."""

    @abstractmethod
    def memory(self, demand: Demand) -> float:
        """Bytes that a job is expected to hold."""


class AssumedRates(Rates):
    """Rates by a data sheet: a job computes or launches, whichever takes longer, and then moves bytes."""

    def __init__(self, device: Device, assumed: Assumptions) -> None:
        self.name = device.name
        self.room = device.memory * (1 - assumed.reserve)
        self.basis = [
            f"peaks: {device.source}",
            f"assumed: prefills reach {assumed.compute:.0%} of the peak,"
            f" decoding {assumed.bandwidth:.0%} of the bandwidth;"
            f" {assumed.layer_seconds * 1e6:.0f} us to launch a layer;"
            f" {assumed.job_seconds:.0f} s to start a job;"
            f" checkpoints read at {assumed.load_bytes / 1e9:.1f} GB/s; downloads not counted",
        ]
        self._device = device
        self._assumed = assumed

    def seconds(self, rule: str, dtype: Dtype | None, demand: Demand) -> float:
        """Expected seconds of a job, from start to end.

        Raises:
            UserError: the device's peak in this data type is not known.
        """
        work, assumed = demand.work, self._assumed
        kind = dtype or "float32"
        if kind not in self._device.flops:
            raise UserError(
                f"plan: no peak of {self.name} in {kind}; add it to its 'flops' in the list of devices"
            )
        computing = work.flops / (self._device.flops[kind] * assumed.compute)
        moving = work.bytes / (self._device.bandwidth * assumed.bandwidth)
        launching = work.layers * assumed.layer_seconds
        return assumed.job_seconds + work.loaded / assumed.load_bytes + max(computing, launching) + moving

    def memory(self, demand: Demand) -> float:
        """Bytes that a job is expected to hold."""
        return demand.memory


class FittedRates(Rates):
    """Rates fitted to the times of finished jobs by non-negative least squares of the relative errors.

    The fitted time of a rule with finished jobs is multiplied by the median of their measured over their
    fitted times, which corrects for what the work does not count.

    Args:
        jobs: Finished jobs.

    Raises:
        UserError: there are fewer than `FEWEST` jobs.
    """

    FEWEST = 5

    def __init__(self, jobs: Sequence[TimedJob]) -> None:
        if len(jobs) < self.FEWEST:
            raise UserError(
                f"plan: {len(jobs)} finished jobs here tell too little of this machine's rates; run some"
                " (snakemake --cores 1 baseline F1), or name a device of workflow/plan/devices.yaml"
            )
        self.name = "this machine"
        self.room = float(psutil.virtual_memory().total)
        seconds = np.array([job.seconds for job in jobs])
        terms = np.array([_terms(job.dtype, job.demand) for job in jobs])
        self._scale = np.where(terms.any(axis=0), terms.max(axis=0), 1.0)
        self._rates, _ = nnls(terms / self._scale / seconds[:, None], np.ones(len(jobs)))
        ratios = defaultdict(list)
        for job in jobs:
            ratios[job.rule].append(job.seconds / self._fitted(job.dtype, job.demand))
        self._corrections: Mapping[str, float] = {rule: median(values) for rule, values in ratios.items()}
        # Until a model ran here, a job is expected to hold the memory of its demand.
        self._memory = np.array([0.0, 1.0])
        measured = [job for job in jobs if job.memory and job.demand.memory]
        if measured:
            memory = np.array([job.memory for job in measured])
            counted = np.array([[1.0, job.demand.memory] for job in measured])
            self._memory, _ = nnls(counted / memory[:, None], np.ones(len(measured)))
        self.basis = [
            f"rates: fitted to {len(jobs)} jobs that ran in this folder"
            f" ({', '.join(f'{rule} {len(values)}' for rule, values in sorted(ratios.items()))})"
        ]

    def seconds(self, rule: str, dtype: Dtype | None, demand: Demand) -> float:
        """Expected seconds of a job, from start to end."""
        return self._fitted(dtype, demand) * self._corrections.get(rule, 1.0)

    def memory(self, demand: Demand) -> float:
        """Bytes that a job is expected to hold."""
        return float(self._memory @ [1.0, demand.memory])

    def _fitted(self, dtype: Dtype | None, demand: Demand) -> float:
        return float(self._rates @ (_terms(dtype, demand) / self._scale))


def timed_jobs() -> list[TimedJob]:
    """Every finished job and panel in the working directory whose specs and models are still there."""
    return [
        job
        for stage in STAGES
        # A record is joined from blocks without any model.
        if stage is not JOIN
        for digest, row in measurements(stage.rule)
        if (job := _timed_job(stage, digest, row))
    ]


def _terms(dtype: Dtype | None, demand: Demand) -> np.ndarray:
    """Terms of a job's time, shape (7,): start, operations by data type, bytes, layer calls, bytes loaded."""
    work = demand.work
    flops = [work.flops if dtype == peak_dtype else 0.0 for peak_dtype in BYTES]
    return np.array([1.0, *flops, work.bytes, work.layers + work.replayed, work.loaded])


def _timed_job(stage: Stage, digest: str, row: Mapping[str, str]) -> TimedJob | None:
    """A finished job or panel, from the last row of its benchmark file; None where its files are gone."""
    members: list[tuple[str, Collection[int]]] = [(digest, ONCE)]
    if stage.panel:
        try:
            entries = read_panel(Path(PANEL.format(panel=digest))).entries
        except UserError:
            return None
        members = [(entry.digest, numbers(entry.spans)) for entry in entries]
    files = [_job_file(stage, member) for member, _ in members]
    demands = [_demand(stage, file) for file in files if file is not None]
    known = [each for each in demands if each is not None]
    if len(known) < len(members):
        return None
    compute = getattr(files[0].spec, "compute", None)
    return TimedJob(
        rule=stage.rule,
        digest=digest,
        dtype=compute.dtype if compute else None,
        demand=side_by_side(zip(known, (items for _, items in members), strict=True)),
        seconds=float(row["s"]),
        memory=float(row["max_rss"]) * 2**20 if row["max_rss"] not in ("-", "NA") else 0.0,
    )


def _demand(stage: Stage, file: JobFile) -> Demand | None:
    """Demand of a job, of a series for one item; None where a model or the spec of an input is gone."""
    paths = {name: Path(path) for name, path in file.inputs.items()}
    try:
        shapes: dict[str, ModelShape] = {
            name: shape_of_folder(path.parent)
            for name, path in paths.items()
            if path == MODEL.path(path.parent.name)
        }
        if stage is MODEL:
            shapes = {"model": shape_of_folder(stage.path(file.digest).parent)}
    except UserError:
        return None
    inputs = {name: spec for name, path in paths.items() if (spec := _input_spec(path))}
    return demand(file.spec, shapes, inputs) if len(inputs) == len(paths) else None


def _input_spec(manifest: Path) -> Contract | None:
    """Spec of an input artefact."""
    digest = manifest.parent.name
    stage = next((stage for stage in STAGES if stage.path(digest) == manifest), None)
    file = _job_file(stage, digest) if stage else None
    return file.spec if file else None


def _job_file(stage: Stage, digest: str) -> JobFile | None:
    """Spec file of a job; None where it is gone or written by another version of this project."""
    try:
        content = Path(SPEC.format(digest=digest)).read_bytes()
        return JobFile[stage.spec].model_validate_json(content)  # type: ignore[name-defined]
    except (OSError, ValidationError):
        return None
