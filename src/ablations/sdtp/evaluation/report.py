"""Results of the evaluation jobs: the costs of an arm, and its record."""

from collections.abc import Sequence
from statistics import fmean

import torch

from ablations.core.job import Run
from ablations.core.record import Outcome, Record, digests_of, environment_of, write_record
from ablations.lm.cache import StaticCache
from ablations.lm.device import available_cores, device_name
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.pruned.cost import kv_bytes, prefill_flops
from ablations.specs.sdtp.evaluate import EvaluateSpec, RetrievalProbe, SdtpSample, SdtpTotals

SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]


def totals_of(
    arm: PrunedArm,
    cache: StaticCache,
    samples: Sequence[SdtpSample],
    flops: Sequence[int],
    probes: Sequence[RetrievalProbe],
    layout: str,
    peak_memory: int,
) -> SdtpTotals:
    """Deterministic costs of an arm, as means over the windows, and its facts.

    Args:
        arm: The arm.
        cache: A cache of the arm's model.
        samples: One per window, all of the same length.
        flops: Prefill FLOPs of each window.
        probes: Results on the passkey prompts.
        layout: Layout of the weights in memory.
        peak_memory: Peak memory in bytes.
    """
    dense = [samples[0].prompt_tokens] * arm.lm.num_layers
    return SdtpTotals(
        keep_ratios=arm.pruning.keep_ratios,
        prefill_flops=fmean(flops),
        reference_prefill_flops=prefill_flops(arm.lm, dense),
        kv_bytes=fmean(kv_bytes(cache, sample.living) for sample in samples),
        reference_kv_bytes=kv_bytes(cache, dense),
        training=arm.training,
        calibration=arm.calibration,
        retrieval=tuple(probes),
        weight_layout=layout,
        cores=len(available_cores()),
        peak_memory_bytes=peak_memory,
    )


def write_report(
    run: Run[EvaluateSpec],
    device: torch.device,
    outcome: Outcome,
    samples: Sequence[SdtpSample],
    kept: Sequence[list[int]],
    totals: SdtpTotals | None,
) -> None:
    """Write the record of an evaluation, and the surviving prompt indices of each window beside it."""
    rows = [
        {"document": sample.document, "kept": indices} for sample, indices in zip(samples, kept, strict=True)
    ]
    compute = run.spec.compute
    record = SdtpRecord(
        label=run.label,
        module=run.job.module,
        spec=run.spec,
        outcome=outcome,
        samples=tuple(samples),
        totals=totals,
        environment=environment_of(run, device_name(device), device.type, compute.threads, compute.dtype),
        digests=digests_of(run),
    )
    write_record(run.out, record, rows or None)
