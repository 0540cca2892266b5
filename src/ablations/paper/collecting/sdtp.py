"""SDTP records as results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from ablations.evidence.inputs import PaperSettings, resampling
from ablations.evidence.join import SdtpRecord
from ablations.evidence.records import (
    ExperimentRecords,
    added_nll,
    first_arm,
    mean_seconds,
    per_document,
    timed_samples,
)
from ablations.evidence.statistics import Estimate, estimate
from ablations.paper.results.sdtp import PasskeyHits, PipelineResult, SdtpProtocol, SdtpResult
from ablations.specs.sdtp.evaluate import RetrievalProbe


def sdtp_result(arm: ExperimentRecords, settings: PaperSettings) -> SdtpResult:
    """Result of a pruning configuration all of whose seeds ran to the end."""
    records = cast(tuple[SdtpRecord, ...], arm.records)
    samples = [sample for record in records for sample in record.samples]
    totals = [record.totals for record in records]
    timed = timed_samples(records)
    how = resampling(settings)
    effects = [float(np.mean([added_nll(sample) for sample in record.samples])) for record in records]
    speedup = estimate(arm.values["speed"], how) if timed else None
    flops = float(np.mean([item.prefill_flops for item in totals]))
    flops_share = flops / totals[0].reference_prefill_flops
    kv_bytes = float(np.mean([item.kv_bytes for item in totals]))
    return SdtpResult(
        seeds=len(records),
        seed_sd=float(np.std(effects, ddof=1)) if len(records) > 1 else None,
        nll=float(np.mean([sample.nll for sample in samples])),
        reference_nll=float(np.mean([sample.reference_nll for sample in samples])),
        quality=estimate(arm.values["quality"], how),
        agreement=estimate(per_document(records, lambda sample: sample.agreement), how),
        kl=estimate(per_document(records, lambda sample: sample.kl), how),
        retrieval=_passkeys([probe for item in totals for probe in item.retrieval]),
        speedup=speedup,
        bound=_shifted(speedup, math.log(flops_share)) if speedup else None,
        seconds=mean_seconds(timed, "arm") if timed else None,
        reference_seconds=mean_seconds(timed, "reference") if timed else None,
        keep_ratios=totals[0].keep_ratios,
        living=_means([count / sample.prompt_tokens for count in sample.living] for sample in samples),
        training_losses=totals[0].training.pruner.losses if totals[0].training else None,
        kept=float(np.mean([sample.living[-1] for sample in samples])),
        kept_share=float(np.mean([sample.living[-1] / sample.prompt_tokens for sample in samples])),
        flops=flops,
        flops_share=flops_share,
        kv_bytes=kv_bytes,
        kv_share=kv_bytes / totals[0].reference_kv_bytes,
        peak_memory_bytes=max(item.peak_memory_bytes for item in totals),
        calibration=totals[0].calibration,
        pipeline=_pipeline(records[0]),
    )


def sdtp_protocol(arms: Mapping[str, ExperimentRecords]) -> SdtpProtocol | None:
    """How the SDTP experiments were measured; None where no record says."""
    arm = first_arm(arms, "sdtp", "baseline")
    if arm is None:
        return None
    record = cast(SdtpRecord, arm.record)
    spec, totals, timing = record.spec, record.totals, record.spec.timing
    return SdtpProtocol(
        arm=arm.experiment.id,
        documents=spec.windows.documents,
        prompt_tokens=spec.windows.prompt_tokens,
        continuation_tokens=spec.windows.continuation_tokens,
        timed_documents=min(timing.documents, spec.windows.documents) if timing else 0,
        repeats=timing.repeats if timing else 0,
        warmup=timing.warmup if timing else 0,
        seeds=len(arm.experiment.records),
        decoder_layers=len(record.samples[0].living) if arm.status == "ok" else 0,
        layers=spec.layers,
        keep_ratios=totals.keep_ratios if totals else spec.keep_ratios,
        **spec.preserve.of(spec.windows.prompt_tokens)._asdict(),
        training=totals.training if totals else None,
        retrieval=spec.retrieval,
        weight_layout=totals.weight_layout if totals else None,
    )


def traffic(results: Mapping[str, SdtpResult]) -> dict[str, float]:
    """Mean bytes over all boundaries, of the experiments that have some."""
    return {
        name: sum(result.pipeline.boundary_bytes)
        for name, result in results.items()
        if result.pipeline is not None and result.pipeline.boundary_bytes
    }


def _passkeys(probes: Sequence[RetrievalProbe]) -> tuple[PasskeyHits, ...]:
    """Hits over all depths, then at each."""
    if not probes:
        return ()
    depths = sorted({probe.depth for probe in probes})
    return (
        _hits(None, probes),
        *(_hits(depth, [probe for probe in probes if probe.depth == depth]) for depth in depths),
    )


def _hits(depth: float | None, probes: Sequence[RetrievalProbe]) -> PasskeyHits:
    return PasskeyHits(
        depth=depth,
        prompts=len(probes),
        hits=sum(probe.hit for probe in probes),
        reference_hits=sum(probe.reference_hit for probe in probes),
    )


def _pipeline(record: SdtpRecord) -> PipelineResult | None:
    if record.spec.pipeline is None:
        return None
    timed = [sample.ranks for sample in record.samples if sample.ranks]
    idle = [[rank.idle / (rank.busy + rank.idle or 1.0) for rank in ranks] for ranks in timed]
    return PipelineResult(
        ranks=record.spec.pipeline.ranks,
        boundary_bytes=_means(sample.boundary_bytes for sample in record.samples),
        reference_boundary_bytes=_means(sample.reference_boundary_bytes for sample in record.samples),
        idle=_means(idle),
    )


def _means(rows: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Means over rows of equal length; rows without an entry are left out."""
    table = [row for row in rows if len(row)]
    return tuple(np.mean(table, axis=0).tolist()) if table else ()


def _shifted(given: Estimate, by: float) -> Estimate:
    """An estimate plus a constant."""
    ends = {
        name: None if end is None else end + by for name, end in (("low", given.low), ("high", given.high))
    }
    return given.model_copy(update={"value": given.value + by, **ends})
