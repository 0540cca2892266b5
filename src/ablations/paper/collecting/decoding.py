"""Decoding records as results."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import pandas as pd

from ablations.evidence.inputs import PaperSettings
from ablations.evidence.join import DecodeRecord
from ablations.evidence.records import ExperimentRecords, first_arm, mean_seconds
from ablations.evidence.statistics import Estimate, estimate, log_speedup, tokens_per_forward
from ablations.paper.results.decoding import (
    DecodingProtocol,
    DecodingResult,
    DepthCount,
    KindMeasures,
    PromptKind,
)
from ablations.specs.dynatree.decode import DecodeSample


def decoding_result(arm: ExperimentRecords, settings: PaperSettings) -> DecodingResult:
    """Result of a decoding configuration that ran to the end."""
    record = cast(DecodeRecord, arm.record)
    samples = list(record.samples)
    values = arm.values["speed"].mean(axis=1)
    autoregressive = record.spec.drafter is None
    library = None
    if autoregressive and record.spec.reference == "generate":
        library = estimate(
            pd.Series([log_speedup(sample.pairs) for sample in samples], index=values.index),
            settings.thresholds.alpha,
        )

    def measures(chosen: list[int]) -> dict[str, Any]:
        speedup = (
            Estimate(value=0.0, low=None, high=None, n=len(chosen), sd=None)
            if autoregressive
            else estimate(values.iloc[chosen], settings.thresholds.alpha)
        )
        return {"speedup": speedup, **_measured([samples[index] for index in chosen])}

    places = {
        kind: [index for index, sample in enumerate(samples) if sample.kind == kind]
        for kind in dict.fromkeys(sample.kind for sample in samples)
    }
    return DecodingResult(
        autoregressive=autoregressive,
        library_speedup=library,
        kinds=tuple(KindMeasures(kind=kind, **measures(chosen)) for kind, chosen in places.items()),
        **measures(list(range(len(samples)))),
    )


def _measured(samples: list[DecodeSample]) -> dict[str, Any]:
    """Fields of `DecodingMeasures` other than the speed-up."""
    rounds, drafted, accepted, tokens = (
        sum(getattr(sample, name) for sample in samples)
        for name in ("target_forwards", "drafted", "accepted", "new_tokens")
    )
    # No forward at all: prefill's own token ended every sequence.
    forwards, later = max(1, rounds), tokens - len(samples)
    phases = {
        name: sum(getattr(sample, f"{name}_seconds") for sample in samples)
        for name in ("draft", "verify", "bookkeeping")
    }
    working = sum(phases.values())
    seconds, first = (mean_seconds(samples, side) for side in ("arm", "arm_first"))
    return {
        "prompts": len(samples),
        "new_tokens": tokens,
        "throughput": tokens / (seconds * len(samples)),
        "first_seconds": first,
        "token_seconds": (seconds - first) * len(samples) / later if later else None,
        "tokens_per_forward": tokens_per_forward(accepted, rounds),
        "forwards_per_token": rounds / later if later else None,
        "nodes_per_round": drafted / forwards,
        "accepted_per_node": accepted / drafted if drafted else None,
        **{f"{name}_share": spent / working if working else None for name, spent in phases.items()},
        "depths": _depths(samples),
        "matched": sum(sample.matched for sample in samples),
        "tied": sum(not sample.matched and sample.ties > 0 for sample in samples),
        "repeated_4grams": float(np.mean([sample.repeated_4grams for sample in samples])),
    }


def _depths(samples: list[DecodeSample]) -> tuple[DepthCount, ...]:
    """Counts of each depth over all prompts, up to the deepest that was reached."""
    tested, accepted = (
        [sum(counts) for counts in zip_longest(*(getattr(item, name) for item in samples), fillvalue=0)]
        for name in ("tested_per_depth", "accepted_per_depth")
    )
    return tuple(
        DepthCount(tested=reached, accepted=taken) for reached, taken in zip(tested, accepted, strict=True)
    )


def decoding_protocol(
    arms: Mapping[str, ExperimentRecords], settings: PaperSettings
) -> DecodingProtocol | None:
    """How the decoding experiments were measured; None where no record says."""
    arm = first_arm(arms, "dynatree", settings.full_method)
    if arm is None:
        return None
    spec, totals = arm.record.spec, arm.record.totals
    return DecodingProtocol(
        prompts=tuple(
            PromptKind(kind=item.kind, count=item.count, tokens=item.tokens) for item in spec.prompts
        ),
        new_tokens=spec.new_tokens,
        repeats=spec.repeats,
        warmup=spec.warmup,
        weight_layout=totals.weight_layout if totals else None,
        tie_margin=totals.tie_margin if totals else None,
    )
