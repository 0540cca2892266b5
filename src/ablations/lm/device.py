"""The device that a job computes on, chosen at run time, and its settings."""

import functools
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ablations.lm.claims import claim
from ablations.specs.lm import Compute


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process sees; a GPU has the same name in every process of the host."""
    return [device_key(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]


def device_key(device: torch.device) -> str:
    """Name of `device` on this host; unlike a GPU's index it does not depend on which GPUs are visible."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return f"{device.type}-{device.index or 0}"


@functools.cache
def pick_device() -> torch.device:
    """Claim a GPU that no other job of this project uses, until this process ends; the CPU without a GPU.

    Waits while all GPUs are claimed.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    (index,) = claim(visible_gpus(), 1)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """Name of `device`, from the driver (CUDA) or the operating system (CPU)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cores() -> frozenset[int]:
    """CPU cores that this process may use; all cores where the operating system cannot tell."""
    all_cores = range(os.cpu_count())
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else all_cores)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far, in bytes: of the allocator of `device` (CUDA) or of this process (CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def configure(compute: Compute, device: torch.device | None = None) -> torch.device:
    """Set the spec's threads and reproducible arithmetic; return the device to compute on.

    Must be called before anything else uses torch: cuBLAS reads its workspace setting only once.

    Args:
        compute: How the job computes.
        device: Device to compute on; None picks one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(compute.threads)
    # "highest" keeps float32 products in float32: TF32 would change tokens and blur NLL differences.
    torch.set_float32_matmul_precision("highest")
    # An operator without a deterministic form only warns: it is no reason to end a measurement.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory would be timed with the work that overwrites it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return pick_device() if device is None else device


@contextmanager
def distinct_indices() -> Iterator[None]:
    """Use the plain form of writes by index, which is deterministic where the indices are distinct.

    On CUDA the deterministic form sorts the indices first, a dozen kernels instead of one.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
