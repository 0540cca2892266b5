"""Decoding records as results."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablations.paper.results.decoding import DecodingProtocol, DecodingResult, PromptKind
from ablations.study.arms import Arm, DecodeRecord, first_arm, mean_seconds, resampling
from ablations.study.contracts.paper import PaperSettings
from ablations.study.statistics import Estimate, estimate, log_speedup


def decoding_result(arm: Arm, settings: PaperSettings) -> DecodingResult:
    """Result of a decoding configuration that ran to the end."""
    record: DecodeRecord = arm.record
    samples = list(record.samples)
    autoregressive = record.spec.drafter is None
    values = arm.values["speed"]
    library = None
    if autoregressive and record.spec.reference == "generate":
        library = estimate(
            pd.Series([log_speedup(sample.pairs) for sample in samples], index=values.index),
            resampling(settings),
        )
    # No forward at all: prefill's own token ended every sequence.
    forwards = max(1, sum(sample.target_forwards for sample in samples))
    tokens = sum(sample.new_tokens for sample in samples)
    drafting = sum(sample.draft_seconds for sample in samples)
    working = drafting + sum(sample.verify_seconds for sample in samples)
    by_definition = Estimate(value=0.0, low=None, high=None, n=len(samples), sd=None)
    return DecodingResult(
        autoregressive=autoregressive,
        speedup=by_definition if autoregressive else estimate(values, resampling(settings)),
        library_speedup=library,
        throughput=tokens / (mean_seconds(samples, "arm") * len(samples)),
        tokens_per_forward=1 + sum(sample.accepted for sample in samples) / forwards,
        nodes_per_round=sum(sample.drafted for sample in samples) / forwards,
        draft_share=drafting / working if working else None,
        prompts=len(samples),
        new_tokens=tokens,
        matched=sum(sample.matched for sample in samples),
        tied=sum(not sample.matched and sample.ties > 0 for sample in samples),
        repeated_4grams=float(np.mean([sample.repeated_4grams for sample in samples])),
    )


def decoding_protocol(arms: Mapping[str, Arm], settings: PaperSettings) -> DecodingProtocol | None:
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
