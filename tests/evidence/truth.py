"""How often intervals of the default study miss what far more documents and prompts say, as a table.

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
from ablations.evidence.statistics import Mean, kinds_of, stacked
from ablations.study.planning.stages import COLLECT_STAMP
from ablations.study.prospects import measured

FIRST = {"text": 60, "retrieval": 40}
"""Documents and prompts of the default study."""

REPLAYED, TIMED = 20, 5
"""Decoding prompts of each kind that the default study replays and times."""


class Row(NamedTuple):
    """An effect on the first documents, and on all of them.

    Attributes:
        name: Experiment and measure.
        n: Documents or replayed prompts of the first.
        every: Documents or replayed prompts of all.
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


def chance_of_miss(df: float, share: float) -> float:
    """Probability that a 95% interval from a part of the values misses the mean of all of them.

    Args:
        df: Degrees of freedom of the part's error.
        share: Variance of the mean of all over that of the part.
    """
    quantile = special.stdtrit(df, 0.025) / math.sqrt(max(1 - share, 1e-12))
    return float(2 * special.stdtr(df, quantile))


def as_by_default(arm: ExperimentRecords) -> ExperimentRecords:
    """An arm on those decoding prompts alone that the default study replays and times."""
    if "speed" not in arm.values or arm.experiment.method != "dynatree":
        return arm
    first = {"speed": arm.values["speed"].groupby(kinds_of(arm.values["speed"].index)).head(TIMED)}
    priced = None if arm.priced is None else arm.priced.groupby(kinds_of(arm.priced.index)).head(REPLAYED)
    return arm._replace(values=arm.values | first, priced=priced)


def rows(arms: Mapping[str, ExperimentRecords], settings: PaperSettings) -> list[Row]:
    """Every confirmatory effect on quality of pruning, and on the speed of decoding."""
    every_effect = Effects(arms, settings)
    first_effect = Effects({name: as_by_default(arm) for name, arm in arms.items()}, settings)
    firsts: list[Mean] = []
    regions: list[Region] = []
    found: list[Row] = []
    for name in (*settings.confirmatory.sdtp, *settings.confirmatory.dynatree):
        for experiment, aspect, level, against in predictions(arms[name].experiment):
            endpoint = ENDPOINTS.get(aspect)
            decoding = arms[name].experiment.method == "dynatree"
            if endpoint is None or (endpoint not in FIRST and not decoding):
                continue
            some = FIRST.get(endpoint)
            first = first_effect.mean(experiment, against, endpoint, some)
            whole = every_effect.mean(experiment, against, endpoint)
            comparison = every_effect.comparison(experiment, against, endpoint)
            part = first_effect.comparison(experiment, against, endpoint)
            assert first and whole and comparison and part, f"{name} {aspect}: not on {some} documents"
            n, every = some or part.estimate.n, comparison.estimate.n
            low, high = first.interval(0.05)
            share = float((whole.error / first.error).min()) ** 2 if decoding else n / every
            found.append(
                Row(
                    name=f"{name} {aspect} {against}" if decoding else f"{name} {aspect}",
                    n=n,
                    every=every,
                    effect=float(first.value),
                    low=float(low),
                    high=float(high),
                    truth=float(whole.value),
                    word="",
                    region=(-math.inf, math.inf),
                    chance=chance_of_miss(float(first.df.min()) if decoding else n - 1, share),
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
