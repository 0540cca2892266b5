"""Rates of a device: the makers' peaks under stated assumptions, or fitted to the jobs that ran here."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import psutil
from pydantic import PositiveFloat
from scipy.optimize import nnls

from ablations.study.contracts.base import Contract
from ablations.study.contracts.lm import Dtype
from ablations.study.errors import UserError
from ablations.study.estimate.demand import Demand
from ablations.study.estimate.finished import Finished
from ablations.study.estimate.work import BYTES


class Assumptions(Contract):
    """What is assumed of devices that nothing was measured on."""

    compute: PositiveFloat
    """Share of the peak that prefills reach."""
    bandwidth: PositiveFloat
    """Share of the peak that decoding reaches."""
    layer_seconds: PositiveFloat
    """Seconds of launching one layer."""
    job_seconds: PositiveFloat
    """Seconds of a job beside its work."""
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
    """What a device can do.

    Attributes:
        name: What it is.
        room: Bytes that a job may hold.
        basis: What the rates rest on, lines of text.
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
    """Rates of a device by its data sheet: computing or launching, whichever is slower, and moving."""

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
    """Rates that fit the times of finished jobs best (non-negative least squares of relative errors).

    A rule whose jobs were measured is corrected by the median of measured over fitted time, which takes in
    what the count of work leaves out.

    Raises:
        UserError: too few jobs ran here.
    """

    FEWEST = 5

    def __init__(self, jobs: Sequence[Finished]) -> None:
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
        shares = defaultdict(list)
        for job in jobs:
            shares[job.rule].append(job.seconds / self._fitted(job.dtype, job.demand))
        self._corrections: Mapping[str, float] = {rule: median(found) for rule, found in shares.items()}
        held = [(job.demand.memory, job.memory) for job in jobs if job.memory and job.demand.memory]
        # Before a model ran here, a job is taken to hold what was counted.
        self._memory = np.array([0.0, 1.0])
        if held:
            wanted = np.array([[1.0, demand] for demand, _ in held])
            measured = np.array([memory for _, memory in held])
            self._memory, _ = nnls(wanted / measured[:, None], np.ones(len(held)))
        self.basis = [
            f"rates: fitted to {len(jobs)} jobs that ran in this folder"
            f" ({', '.join(f'{rule} {len(found)}' for rule, found in sorted(shares.items()))})"
        ]

    def seconds(self, rule: str, dtype: Dtype | None, demand: Demand) -> float:
        """Expected seconds of a job, from start to end."""
        return self._fitted(dtype, demand) * self._corrections.get(rule, 1.0)

    def memory(self, demand: Demand) -> float:
        """Bytes that a job is expected to hold."""
        return float(self._memory @ [1.0, demand.memory])

    def _fitted(self, dtype: Dtype | None, demand: Demand) -> float:
        return float(self._rates @ (_terms(dtype, demand) / self._scale))


def _terms(dtype: Dtype | None, demand: Demand) -> np.ndarray:
    """What time is a sum of: a job itself, operations by data type, bytes, layer calls, bytes loaded."""
    work = demand.work
    flops = [work.flops if dtype == each else 0.0 for each in BYTES]
    return np.array([1.0, *flops, work.bytes, work.layers + work.replayed, work.loaded])
