"""Settings of the device."""

import torch

from ablations.lm.device import configure, device_name, peak_memory_bytes, pick_device
from ablations.specs.lm import Compute


def test_configure_takes_the_threads_of_the_spec() -> None:
    torch.set_num_threads(2)
    assert configure(Compute(threads=1)) == pick_device()
    assert torch.get_num_threads() == 1
    configure(Compute(threads=2))
    assert torch.get_num_threads() == 2


def test_configure_asks_for_reproducible_float32() -> None:
    torch.set_float32_matmul_precision("high")
    configure(Compute())
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_the_device_has_a_name() -> None:
    assert device_name(pick_device()).strip()


def test_peak_memory_counts_bytes() -> None:
    device = pick_device()
    before = peak_memory_bytes(device)
    block = torch.ones(256 * 2**20, dtype=torch.uint8, device=device)
    after = peak_memory_bytes(device)
    del block
    assert after >= 256 * 2**20
    assert before <= after == peak_memory_bytes(device)
