"""Decoding records as results."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import pandas as pd

from ablations.evidence.corrected import corrected_estimate, corrected_mean
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.join import DecodeRecord
from ablations.evidence.records import ExperimentRecords, first_arm, mean_seconds
from ablations.evidence.statistics import (
    UNDEFINED,
    Estimate,
    estimate,
    kinds_of,
    log_rounds_speedup,
    log_speedup,
    tokens_per_forward,
)
from ablations.paper.results.decoding import (
    DecodingProtocol,
    DecodingResult,
    DepthCount,
    KindMeasures,
    PromptKind,
)
from ablations.specs.dynatree.counts import DecodingCounts
from ablations.specs.dynatree.decode import DecodeSample, DecodeSpec


def decoding_result(arm: ExperimentRecords, settings: PaperSettings) -> DecodingResult:
    """Result of a decoding configuration that ran to the end."""
    record = cast(DecodeRecord, arm.record)
    samples, replays = list(record.samples), list(record.totals.replays)
    alpha = settings.thresholds.alpha
    library = None
    if arm.is_autoregressive and record.spec.reference == "generate":
        names = arm.values["speed"].index
        library = estimate(pd.Series([log_speedup(sample.pairs) for sample in samples], index=names), alpha)
    clocks = _Clocks(arm, record, alpha)

    def measures(kind: str | None) -> dict[str, Any]:
        chosen, counted = (
            [item for item in items if kind in (None, item.kind)] for items in (samples, replays)
        )
        return {
            "replayed": len(counted) or None,
            **clocks.speedups(kind),
            **_timed(chosen),
            **_counted(counted or chosen),
        }

    kinds = dict.fromkeys(sample.kind for sample in samples)
    return DecodingResult(
        autoregressive=arm.is_autoregressive,
        library_speedup=library,
        unlike=record.totals.unlike,
        kinds=tuple(KindMeasures(kind=kind, **measures(kind)) for kind in kinds),
        **measures(None),
    )


class _Clocks:
    """Speed-ups of an arm by the clock of the whole generation and by that of decoding alone."""

    def __init__(self, arm: ExperimentRecords, record: DecodeRecord, alpha: float) -> None:
        self._alpha = alpha
        self._autoregressive = arm.is_autoregressive
        self._measured = {"speedup": arm.values["speed"].mean(axis=1)}
        self._priced = {"speedup": arm.priced}
        if self._autoregressive:
            return
        names = self._measured["speedup"].index
        rounds = {
            name: log_rounds_speedup(sample.pairs)
            for name, sample in zip(names, record.samples, strict=True)
            if sample.target_forwards and all(pair.reference_first for pair in sample.pairs)
        }
        self._measured["rounds_speedup"] = pd.Series(rounds, dtype=float)
        priced = None
        if arm.priced is not None:
            pairs = zip(arm.priced.index, record.totals.replays, strict=True)
            prices = {name: math.log(one.reference_rounds / one.rounds) for name, one in pairs if one.rounds}
            priced = pd.Series(prices, dtype=float)
        self._priced["rounds_speedup"] = priced

    def speedups(self, kind: str | None) -> dict[str, Any]:
        """Speed-ups over all prompts, or over those of a kind."""
        if self._autoregressive:
            n = len(_of(self._measured["speedup"], kind))
            value = Estimate(value=0.0, low=None, high=None, n=n, sd=None)
            return {"speedup": value, **dict.fromkeys(("measured_speedup", "rounds_speedup", "price_error"))}
        found: dict[str, Any] = {}
        for name, measured in self._measured.items():
            own, priced = _of(measured, kind), self._priced[name]
            if priced is None:
                found[name] = None if own.empty else estimate(own, self._alpha)
                continue
            every = _of(priced, kind)
            own = own[own.index.isin(every.index)]
            # A kind may have no timed prompt with a round, and then defines no mean.
            mean = UNDEFINED if own.empty else corrected_mean(own, every)
            known = math.isfinite(mean.value)
            found[name] = corrected_estimate(mean, len(every), self._alpha) if known else None
        own, priced = _of(self._measured["speedup"], kind), self._priced["speedup"]
        found |= dict.fromkeys(("measured_speedup", "price_error"))
        if priced is not None:
            found["measured_speedup"] = estimate(own, self._alpha)
            found["price_error"] = estimate(priced[own.index] - own, self._alpha)
        return found


def _of(values: pd.Series, kind: str | None) -> pd.Series:
    """Values of the prompts of a kind; None takes all."""
    return values if kind is None else values[[each == kind for each in kinds_of(values.index)]]


def _timed(samples: list[DecodeSample]) -> dict[str, Any]:
    """Fields of `DecodingMeasures` that a clock plays a part in, or that only emitted tokens tell."""
    tokens = sum(sample.new_tokens for sample in samples)
    later = tokens - len(samples)
    phases = {
        name: sum(getattr(sample, f"{name}_seconds") for sample in samples)
        for name in ("draft", "verify", "bookkeeping")
    }
    working = sum(phases.values())
    seconds, first = (mean_seconds(samples, side) for side in ("arm", "arm_first"))
    return {
        "prompts": len(samples),
        "throughput": tokens / (seconds * len(samples)),
        "first_seconds": first,
        "token_seconds": (seconds - first) * len(samples) / later if later else None,
        **{f"{name}_share": spent / working if working else None for name, spent in phases.items()},
        "matched": sum(sample.matched for sample in samples),
        "tied": sum(not sample.matched and sample.ties > 0 for sample in samples),
    }


def _counted(samples: Sequence[DecodingCounts]) -> dict[str, Any]:
    """Fields of `DecodingMeasures` that are counted."""
    rounds, drafted, accepted, tokens = (
        sum(getattr(sample, name) for sample in samples)
        for name in ("target_forwards", "drafted", "accepted", "new_tokens")
    )
    # No forward at all: prefill's own token ended every sequence.
    forwards, later = max(1, rounds), tokens - len(samples)
    return {
        "new_tokens": tokens,
        "tokens_per_forward": tokens_per_forward(accepted, rounds),
        "forwards_per_token": rounds / later if later else None,
        "nodes_per_round": drafted / forwards,
        "accepted_per_node": accepted / drafted if drafted else None,
        "depths": _depths(samples),
        "repeated_4grams": float(np.mean([sample.repeated_4grams for sample in samples])),
    }


def _depths(samples: Sequence[DecodingCounts]) -> tuple[DepthCount, ...]:
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
    spec, totals = cast(DecodeSpec, arm.record.spec), arm.record.totals
    timed = {item.kind: item.count for item in spec.prompts}
    return DecodingProtocol(
        prompts=tuple(
            PromptKind(kind=item.kind, count=item.count, timed=timed[item.kind], tokens=item.tokens)
            for item in spec.replayed or spec.prompts
        ),
        replayed=bool(spec.replayed),
        new_tokens=spec.new_tokens,
        repeats=spec.repeats,
        warmup=spec.warmup,
        weight_layout=totals.weight_layout if totals else None,
        tie_margin=totals.tie_margin if totals else None,
    )
