"""How often intervals of the default study miss what far more documents say, as a table.

``python -m tests.evidence.truth`` in the folder of a finished study `workflow/studies/truth.yaml`.
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from scipy import special, stats

from ablations.core.record import read_contract
from ablations.evidence.decisions import ENDPOINTS, predictions
from ablations.evidence.effects import Effects
from ablations.evidence.inputs import PaperInput, PaperSettings
from ablations.evidence.records import ExperimentRecords
from ablations.evidence.rule import NOT_RESOLVED, Region, read_family, region
from ablations.evidence.statistics import Mean, stacked
from ablations.study.planning.stages import COLLECT_STAMP
from ablations.study.prospects import measured

FIRST = {"text": 60, "retrieval": 40}
"""Documents and prompts of the default study."""


class Row(NamedTuple):
    """An effect on the first documents, and on all of them.

    Attributes:
        name: Experiment and measure.
        n: Documents of the first.
        every: Documents of all.
        effect: Effect on the first.
        low: Lower end of its 95% interval.
        high: Upper end.
        truth: Effect on all.
        word: What is said of the effect on the first, among all rows at 5%.
        region: What the word claims, two ends.
        chance: Probability that the interval misses an effect on all: the first are a part of all, so that it
            is below 5% (normal data, trainings that stay).
    """

    name: str
    n: int
    every: int
    effect: float
    low: float
    high: float
    truth: float
    word: str
    region: tuple[float, float]
    chance: float

    @property
    def missed(self) -> bool:
        """Whether the interval misses the effect on all."""
        return not self.low < self.truth < self.high

    @property
    def contradicted(self) -> bool:
        """Whether the effect on all lies where the word says it does not."""
        return not self.region[0] < self.truth < self.region[1]


def chance_of_miss(n: int, every: int) -> float:
    """Probability that a 95% interval from the first n of so many values misses the mean of all of them."""
    quantile = special.stdtrit(n - 1, 0.025) / math.sqrt(1 - n / every)
    return float(2 * special.stdtr(n - 1, quantile))


def rows(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> list[Row]:
    """Every confirmatory effect on quality."""
    effects = Effects(arms, settings)
    firsts: list[Mean] = []
    regions: list[Region] = []
    found: list[Row] = []
    for name in settings.confirmatory.sdtp:
        for experiment, aspect, level, against in predictions(arms[name].experiment):
            endpoint = ENDPOINTS.get(aspect)
            if endpoint not in FIRST:
                continue
            n = FIRST[endpoint]
            first, whole = (effects.mean(experiment, against, endpoint, some) for some in (n, None))
            comparison = effects.comparison(experiment, against, endpoint)
            assert first and whole and comparison, f"{name} {aspect}: not on {n} documents"
            every = comparison.estimate.n
            low, high = first.interval(0.05)
            found.append(
                Row(
                    name=f"{name} {aspect}",
                    n=n,
                    every=every,
                    effect=float(first.value),
                    low=float(low),
                    high=float(high),
                    truth=float(whole.value),
                    word="",
                    region=(-math.inf, math.inf),
                    chance=chance_of_miss(n, every),
                )
            )
            firsts.append(first)
            regions.append(region(level, endpoint, settings.thresholds))
    read = read_family([(stacked(firsts), settings.thresholds.alpha)], regions)
    words = [
        own.words[place] if place >= 0 else NOT_RESOLVED
        for own, place in zip(regions, read.word, strict=True)
    ]
    return [
        row._replace(word=word.outcome.replace("_", " "), region=(word.low, word.high))
        for row, word in zip(found, words, strict=True)
    ]


def table(found: list[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| effect | first | 95% interval | all | inside | word on the first | true of all |"
    yield "|---|---|---|---|---|---|---|"
    for row in found:
        yield (
            f"| {row.name} | {row.effect:+.3f} ({row.n}) | [{row.low:+.3f}, {row.high:+.3f}] |"
            f" {row.truth:+.3f} ({row.every}) | {'no' if row.missed else 'yes'} | {row.word} |"
            f" {'no' if row.contradicted else 'yes'} |"
        )
    missed, expected = sum(row.missed for row in found), sum(row.chance for row in found)
    at_least = 1 - stats.poisson_binom.cdf(missed - 1, [row.chance for row in found])
    yield ""
    yield (
        f"{missed} of {len(found)} intervals miss; {expected:.2f} are expected of independent ones, and at"
        f" least {missed} have probability {at_least:.2f}. {sum(row.contradicted for row in found)} words are"
        " false of all documents."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence.truth", description=__doc__)
    parser.add_argument("--plan", type=Path, default=Path(COLLECT_STAMP), help="stamp of the rule `collect`")
    study = read_contract(parser.parse_args().plan, PaperInput)
    print("\n".join(table(rows(measured(study), study.settings))))


if __name__ == "__main__":
    main()
