"""The device a job computes on, found at run time, and its settings."""

import os
import platform
import resource
import sys
from pathlib import Path

import torch

from ablations.study.contracts.lm import Compute


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def device_name(device: torch.device) -> str:
    """Name of `device` as the driver (CUDA) or the operating system (CPU) tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def own_cores() -> frozenset[int]:
    """CPU cores that this process may use, where the operating system can tell, else all."""
    everything = range(os.cpu_count())
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everything)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of the allocator of `device` (CUDA), or of this process (CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def configure(compute: Compute) -> torch.device:
    """Set the threads of the spec and reproducible arithmetic; return the device to compute on.

    Call it before anything else touches torch: cuBLAS reads its workspace setting only once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(compute.threads)
    # "highest" keeps float32 products in float32: TF32 would break token identity and NLL differences.
    torch.set_float32_matmul_precision("highest")
    # Operators without a deterministic form only warn: they are no reason to end a measurement.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory would be timed together with the work that overwrites it.
    torch.utils.deterministic.fill_uninitialized_memory = False
    return pick_device()
