"""Prompt-length sweeps as results."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ablations.core.record import Environment, read_contract
from ablations.evidence.statistics import Estimate, log_speedup, median_seconds
from ablations.paper.results.files import RecordFile, record_file
from ablations.paper.results.sdtp import SweepResult
from ablations.specs.sdtp.sweep import Sweep, SweepPoint
from ablations.specs.sdtp.timing import TimedPair


def sweep_results(paths: Iterable[str]) -> tuple[SweepResult, ...]:
    """Points of the sweeps that have run, by prompt length and falling keep ratio.

    Raises:
        UserError: a sweep is damaged.
    """
    points = []
    for path, sweep in _found(paths):
        file = record_file(path, sweep.environment, sweep.digests)
        points += [_result(file, sweep, point) for point in sweep.points]
    return tuple(sorted(points, key=lambda point: (point.tokens, -point.keep_ratio)))


def sweep_environments(paths: Iterable[str]) -> list[Environment]:
    """Where each of the sweeps that have run was measured.

    Raises:
        UserError: a sweep is damaged.
    """
    return [sweep.environment for _, sweep in _found(paths)]


def _found(paths: Iterable[str]) -> Iterator[tuple[str, Sweep]]:
    return ((path, read_contract(Path(path), Sweep)) for path in paths if Path(path).is_file())


def _result(file: RecordFile, sweep: Sweep, point: SweepPoint) -> SweepResult:
    return SweepResult(
        file=file,
        tokens=sweep.spec.tokens,
        keep_ratio=point.keep_ratio,
        new_tokens=sweep.spec.new_tokens,
        prefill=_over_rounds(point.prefill),
        end_to_end=_over_rounds(point.end_to_end),
        seconds=median_seconds(pair.arm for pair in point.prefill),
        reference_seconds=median_seconds(pair.reference for pair in point.prefill),
        ideal=math.log(point.reference_flops / point.flops),
        kv_share=point.kv_bytes / point.reference_kv_bytes,
        overhead=point.overhead,
        library=log_speedup(sweep.library),
    )


def _over_rounds(pairs: Sequence[TimedPair]) -> Estimate:
    """Log speed-up of one prompt, with the smallest and the largest of its rounds."""
    ratios = [math.log(pair.reference / pair.arm) for pair in pairs]
    return Estimate(
        value=log_speedup(pairs),
        low=min(ratios),
        high=max(ratios),
        n=len(ratios),
        sd=float(np.std(ratios)),
    )
