"""Tokens per second of a benchmark's arms, and how they compare."""

import math
from collections.abc import Iterable

import pandas as pd

from ablations.evidence.statistics import estimate, median_seconds
from ablations.paper.results.benchmark import Speedup
from ablations.specs.dynatree.benchmark import ArmRun, BenchmarkSample


class Rates:
    """Log tokens per second of every arm, by kind and document, of the median over repeats.

    Args:
        samples: Samples of the record.
        alpha: Intervals cover 1 - alpha.
    """

    def __init__(self, samples: Iterable[BenchmarkSample], alpha: float) -> None:
        rates = {
            (sample.kind, sample.document): {name: _log_rate(run) for name, run in sample.runs.items()}
            for sample in samples
        }
        # One row for each prompt, one column for each arm; NaN where an arm had fewer prompts.
        self._frame = pd.DataFrame.from_dict(rates, orient="index")
        self._frame.index = pd.MultiIndex.from_tuples(self._frame.index, names=["kind", "document"])
        self._alpha = alpha

    def speedup(self, arm: str, versus: str) -> Speedup:
        """An arm over another, on the prompts that both decoded."""
        differences = (self._frame[arm] - self._frame[versus]).dropna()
        found = estimate(differences, self._alpha)
        return Speedup(
            arm=arm,
            versus=versus,
            value=math.exp(found.value),
            low=None if found.low is None else math.exp(found.low),
            high=None if found.high is None else math.exp(found.high),
            prompts=found.n,
            kinds=differences.groupby(level="kind", sort=False).mean().map(math.exp).to_dict(),
        )

    def fastest(self, arms: Iterable[str], versus: str) -> str:
        """The arm of the largest speed-up over another."""
        return max(arms, key=lambda arm: self.speedup(arm, versus).value)


def _log_rate(run: ArmRun) -> float:
    return math.log(run.new_tokens / median_seconds(run.seconds))
