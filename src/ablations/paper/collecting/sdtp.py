"""SDTP records as results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from ablations.evidence.inputs import PaperSettings
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
from ablations.paper.results.sdtp import PipelineResult, RetrievalHits, SdtpProtocol, SdtpResult
from ablations.specs.sdtp.retrieval import RetrievalKind, RetrievalProbe


def sdtp_result(arm: ExperimentRecords, settings: PaperSettings) -> SdtpResult:
    """Result of a pruning configuration all of whose seeds ran to the end."""
    records = cast(tuple[SdtpRecord, ...], arm.records)
    samples = [sample for record in records for sample in record.samples]
    totals = [record.totals for record in records]
    timed = timed_samples(records)
    alpha = settings.thresholds.alpha
    text = per_document(records, lambda sample: sample.kl)
    speedup = estimate(_over_seeds(arm.values["speed"]), alpha) if timed else None
    answers = arm.values.get("retrieval")
    probes = [probe for item in totals for probe in item.retrieval]
    flops = float(np.mean([item.prefill_flops for item in totals]))
    counted_speedup = math.log(totals[0].reference_prefill_flops / flops)
    kv_bytes = float(np.mean([item.kv_bytes for item in totals]))
    return SdtpResult(
        seeds=len(records),
        kl_seed_sd=float(text.mean().std(ddof=1)) if len(records) > 1 else None,
        nll=float(np.mean([sample.nll for sample in samples])),
        reference_nll=float(np.mean([sample.reference_nll for sample in samples])),
        added_nll=estimate(_over_seeds(per_document(records, added_nll)), alpha),
        agreement=estimate(_over_seeds(per_document(records, lambda sample: sample.agreement)), alpha),
        kl=estimate(_over_seeds(text), alpha),
        answer_nll=None if answers is None else estimate(_over_seeds(answers), alpha),
        reference_answer_nll=float(np.mean([probe.reference_nll for probe in probes])) if probes else None,
        retrieval=_hits(probes),
        speedup=speedup,
        counted_speedup=counted_speedup,
        bound=_shifted(speedup, -counted_speedup) if speedup else None,
        seconds=mean_seconds(timed, "arm") if timed else None,
        reference_seconds=mean_seconds(timed, "reference") if timed else None,
        keep_ratios=totals[0].keep_ratios,
        living=_means([count / sample.prompt_tokens for count in sample.living] for sample in samples),
        training_losses=totals[0].training.pruner.losses if totals[0].training else None,
        kept=float(np.mean([sample.living[-1] for sample in samples])),
        kept_share=float(np.mean([sample.living[-1] / sample.prompt_tokens for sample in samples])),
        flops=flops,
        flops_share=math.exp(-counted_speedup),
        kv_bytes=kv_bytes,
        kv_share=kv_bytes / totals[0].reference_kv_bytes,
        peak_memory_bytes=max(item.peak_memory_bytes for item in totals),
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


def _over_seeds(values: pd.DataFrame) -> pd.Series:
    """Mean over seeds of each document, shape (documents,)."""
    return values.mean(axis=1)


def _hits(probes: Sequence[RetrievalProbe]) -> tuple[RetrievalHits, ...]:
    """Hits over all prompts, then of each kind."""
    if not probes:
        return ()
    kinds = dict.fromkeys(probe.kind for probe in probes)
    return (
        _hits_of(None, probes),
        *(_hits_of(kind, [probe for probe in probes if probe.kind == kind]) for kind in kinds),
    )


def _hits_of(kind: RetrievalKind | None, probes: Sequence[RetrievalProbe]) -> RetrievalHits:
    return RetrievalHits(
        kind=kind,
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
