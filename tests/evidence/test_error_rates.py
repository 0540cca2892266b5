"""Error rates of the whole chain of decisions, in simulated studies of the project's own size.

Documents are skewed, arms are compared with one baseline, and training seeds differ. The simulated effects
lie where words become false: at zero, at the margin and at the threshold of strong effects.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from ablations.evidence.corrected import corrected_mean
from ablations.evidence.decisions import Decision, decide
from ablations.evidence.expectations import Confirmatory, Look, Thresholds
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.rule import Reading, Region, read_family, region
from ablations.evidence.statistics import (
    Array,
    Endpoint,
    Mean,
    crossed_mean,
    pooled,
    sample_mean,
    seed_variance,
    stacked,
)
from tests.evidence.arms import decoding, sdtp, study

STUDIES = 1000
DOCUMENTS, PROMPTS, TIMED_ALL, SEEDS = 60, 40, 9, 6
KINDS, REPLAYED, TIMED = ("code", "documentation", "chat"), 20, {"F3": 2}
"""Kinds of decoding prompts, how many of each are replayed, and how many are timed where not five."""
REAL = json.loads((Path(__file__).parents[1] / "data/differences.json").read_text())
"""Paired differences of a default study (`tests.evidence.differences`), by measure and row."""
SEED_NUMBERS = tuple(range(SEEDS))
SKEWNESS = 1.3

# Rows, their predictions on quality, and whether they have trainings of their own, none, or the baseline's.
ROWS = {
    "A2": ("down_strong", "none"),
    "A3": ("down", "own"),
    "A4": ("down", "own"),
    "A5": ("down_strong", "own"),
    "A6": ("down", "baseline"),
    "A7": ("down", "baseline"),
    "M1": ("down", "none"),
    "B1m": ("same", "baseline"),
}
ORDERINGS = [
    ("F2", "above", "F1"),
    ("F3", "below", "F2"),
    ("F3", "below", "F2b"),
    ("F4", "above", "F3"),
    ("F4", "above", "F2"),
    ("K3", "below", "F4"),
    ("K3", "about", "F2b"),
    ("D1", "below", "F4"),
]
LEVELS = {"above": "up", "below": "down", "about": "same"}
# Standard deviation over documents, of trainings, and of documents within trainings.
SPREADS: dict[Endpoint, tuple[float, float, float]] = {
    "text": (0.1, 0.013, 0.04),
    "retrieval": (0.65, 0.35, 0.33),
}
LOOKS = (
    Look(documents=20, retrieval=20, alpha=0.0025),
    Look(documents=40, retrieval=30, alpha=0.0075),
    Look(documents=60, retrieval=40, alpha=0.04),
)
THRESHOLDS = Thresholds()

REGIONS: list[Region] = [
    *(region(level, "text", THRESHOLDS) for level, _ in ROWS.values()),
    *(region(level, "retrieval", THRESHOLDS) for level, _ in ROWS.values()),
    *(region(LEVELS[aspect], "speed", THRESHOLDS) for _, aspect, _ in ORDERINGS),
]
"""The family: text and retrieval of each row, then the orderings."""


def at(cut: str, prediction: Region) -> float:
    """An effect just beyond the margin, just short of strong and so on, in the expected direction."""
    strong = prediction.strong or 3 * prediction.margin
    sizes = {
        "zero": 0.0,
        "margin": prediction.margin * (1 + 1e-9),
        "margin-": -prediction.margin * (1 + 1e-9),
        "strong": strong * (1 + 1e-9),
        "strong-": strong * (1 - 1e-9),
        "twice": 2 * prediction.margin,
        "large": 20 * prediction.margin,
    }
    return (prediction.sign or 1) * sizes[cut]


SCENARIOS = {
    "all zero": ("zero",),
    "all just beyond the margin": ("margin",),
    "all just beyond the other margin": ("margin-",),
    "all short of strong": ("strong-",),
    "all just strong": ("strong",),
    "half zero, half large": ("zero", "large"),
    "margin and twice the margin": ("margin", "twice"),
    "a blend": ("zero", "margin", "strong"),
}


class Speed(NamedTuple):
    """Log speed-ups of a decoding row in simulated studies.

    Attributes:
        priced: Of each replayed prompt, shape (studies, kinds, prompts).
        timed: Of the first of them as measured, shape (studies, kinds, timed).
    """

    priced: Array
    timed: Array


class Arms(NamedTuple):
    """Results of simulated studies.

    Attributes:
        quality: Per endpoint and row, shape (studies, documents, seeds).
        speed: Per decoding row.
        orderings: Effect of each ordering on speed, shape (studies,).
        truths: True effects in the order of the family, shape (k,).
    """

    quality: dict[Endpoint, dict[str, Array]]
    speed: dict[str, Speed]
    orderings: tuple[Mean, ...]
    truths: Array


def simulated(scenario: str, studies: int) -> Arms:
    rng = np.random.default_rng(1)
    truths = true_effects(scenario)
    effects = iter(truths)
    quality: dict[Endpoint, dict[str, Array]] = {}
    for (endpoint, (sd, seed_sd, within_sd)), n in zip(SPREADS.items(), (DOCUMENTS, PROMPTS), strict=True):
        shape = 4 / SKEWNESS**2

        def documents(n=n, shape=shape, sd=sd):
            return sd * (rng.gamma(shape, 1.0, (studies, n, 1)) - shape) / math.sqrt(2 * shape)

        def within(n=n, within_sd=within_sd):
            return rng.normal(0, within_sd / math.sqrt(2), (studies, n, SEEDS))

        def trainings(seed_sd=seed_sd):
            return rng.normal(0, seed_sd / math.sqrt(2), (studies, 1, SEEDS))

        scorer = trainings()
        arms = {"baseline": 20 + documents() + within() + scorer}
        for name, (_, trained) in ROWS.items():
            arm = 20 + documents() + next(effects)
            if trained == "own":
                arm = arm + within() + trainings()
            elif trained == "baseline":
                # One training alone, the baseline's first: what is said is said of that one.
                arm = (arm + within() + scorer)[..., :1]
            arms[name] = arm
        quality[endpoint] = arms
    return Arms(quality, speeds(studies), ordered(scenario, studies), truths)


def true_effects(scenario: str) -> Array:
    cuts = SCENARIOS[scenario]
    return np.array([at(cuts[i % len(cuts)], prediction) for i, prediction in enumerate(REGIONS)])


@cache
def ordered(scenario: str, studies: int) -> tuple[Mean, ...]:
    """Effect of each ordering on speed, shape (studies,)."""
    speed, truths = speeds(studies), true_effects(scenario)[-len(ORDERINGS) :]
    return tuple(
        corrected(speed[name], speed[versus], truth)
        for (name, _, versus), truth in zip(ORDERINGS, truths, strict=True)
    )


@cache
def speeds(studies: int) -> dict[str, Speed]:
    """Speeds of decoding rows without effects: prompts and rows differ in acceptance, and prices are off."""
    rng = np.random.default_rng(4)
    found = {}
    shape = (studies, len(KINDS), REPLAYED)
    # What a prompt does to every drafter, skewed as acceptance is.
    shared = 0.15 * (rng.gamma(4.0, 1.0, shape) - 4) / 2
    for name in ("F1", "F2", "F2b", "F3", "F4", "K3", "D1"):
        acceptance = np.zeros(shape) if name == "F1" else shared + rng.normal(0, 0.07, shape)
        timed = acceptance[..., : TIMED.get(name, 5)]
        price = acceptance if name == "F1" else acceptance + rng.normal(0, 0.03)
        found[name] = Speed(price, timed + (0 if name == "F1" else rng.normal(0, 0.02, timed.shape)))
    return found


def corrected(own: Speed, other: Speed, truth: float) -> Mean:
    """An effect on speed in each study, shape (studies,)."""
    timed = min(own.timed.shape[-1], other.timed.shape[-1])
    measured = truth + own.timed[..., :timed] - other.timed[..., :timed]
    priced = truth + own.priced - other.priced
    found = [
        corrected_mean(by_prompt(one), by_prompt(prices))
        for one, prices in zip(measured, priced, strict=True)
    ]
    return Mean(*(np.stack(part) for part in zip(*found, strict=True)))


def by_prompt(values: Array) -> pd.Series:
    """Values of shape (kinds, prompts) by name of the prompt."""
    names = [f"{kind}/{number}" for kind in KINDS for number in range(values.shape[1])]
    return pd.Series(values.ravel(), index=names)


def family(arms: Arms, look: Look | None) -> Mean:
    """Effects of the family, shape (studies, k), as `decide` takes them from records."""
    means = []
    for endpoint, results in arms.quality.items():
        first = None if look is None else look.documents if endpoint == "text" else look.retrieval
        base = results["baseline"][:, :first]
        pool = pooled(
            [seed_variance(results[name][:, :first] - base) for name in ROWS if ROWS[name][1] == "own"], SEEDS
        )
        for name, (_, trained) in ROWS.items():
            differences = results[name][:, :first] - (base[..., :1] if trained == "baseline" else base)
            means.append(crossed_mean(differences, pool if trained == "own" else None))
    return stacked([*means, *arms.orderings])


def read(arms: Arms, looks: tuple[Look, ...]) -> Reading:
    if not looks:
        return read_family([(family(arms, None), THRESHOLDS.alpha)], REGIONS)
    effects = [(family(arms, look), look.alpha) for look in looks]
    return read_family(effects, REGIONS)


def false_words(reading: Reading, truths: Array) -> np.ndarray:
    """Which studies have a word whose region does not hold the true effect, shape (studies,)."""
    false = np.zeros(reading.word.shape, bool)
    for place, prediction in enumerate(REGIONS[: len(truths)]):
        for number, word in enumerate(prediction.words):
            wrong = not word.low < truths[place] < word.high
            false[:, place] |= wrong & (reading.word[:, place] == number)
    return false.any(axis=1)


@pytest.mark.full
@pytest.mark.parametrize("looks", [(), LOOKS], ids=["at once", "three looks"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_words_of_a_family_are_false_in_five_studies_of_a_hundred_at_most(scenario, looks):
    arms = simulated(scenario, STUDIES)
    # 5 % and two standard errors of a thousand studies.
    assert false_words(read(arms, looks), arms.truths).mean() <= 0.064


@pytest.mark.full
def test_unadjusted_intervals_cover_the_true_effects():
    arms = simulated("a blend", STUDIES)
    low, high = family(arms, None).interval(0.05)
    covered = (low <= arms.truths) & (arms.truths <= high)
    for kind in np.split(covered, [8, 16], axis=1):
        assert 0.93 <= kind.mean() <= 0.97


def resampled(scenario: str, studies: int) -> tuple[list[Array], Array]:
    """Studies of documents that are drawn from the measured ones, all rows of a document together.

    Returns:
        Per prediction on quality, differences of shape (studies, documents); and the true effects.
    """
    rng = np.random.default_rng(2)
    cuts = SCENARIOS[scenario]
    truths = np.array([at(cuts[i % len(cuts)], region) for i, region in enumerate(REGIONS[: 2 * len(ROWS)])])
    columns = []
    for measure, n in (("text", DOCUMENTS), ("retrieval", PROMPTS)):
        drawn = rng.integers(0, n, (studies, n))
        for name in ROWS:
            values = np.array(REAL[measure][name])
            columns.append((values - values.mean())[drawn])
    return [column + truth for column, truth in zip(columns, truths, strict=True)], truths


def read_resampled(columns: list[Array], looks: tuple[Look, ...]) -> Reading:
    def effects(look: Look | None) -> Mean:
        counts = (None, None) if look is None else (look.documents, look.retrieval)
        firsts = [count for count in counts for _ in ROWS]
        return stacked(
            [sample_mean(column[:, :first]) for column, first in zip(columns, firsts, strict=True)]
        )

    levels = [(effects(look), look.alpha) for look in looks] or [(effects(None), THRESHOLDS.alpha)]
    return read_family(levels, REGIONS[: len(columns)])


@pytest.mark.full
@pytest.mark.parametrize("looks", [(), LOOKS], ids=["at once", "three looks"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_measured_differences_words_are_false_as_rarely(scenario, looks):
    columns, truths = resampled(scenario, STUDIES)
    assert false_words(read_resampled(columns, looks), truths).mean() <= 0.064


@pytest.mark.full
def test_on_measured_differences_intervals_cover_the_true_effects():
    columns, truths = resampled("a blend", STUDIES)
    low, high = stacked([sample_mean(column) for column in columns]).interval(0.05)
    covered = (low <= truths) & (truths <= high)
    for kind in np.split(covered, 2, axis=1):
        assert 0.93 <= kind.mean() <= 0.97


def test_a_simulation_would_notice_words_read_one_by_one():
    arms = simulated("all zero", 300)
    effects = family(arms, None)
    alone = [
        read_family([(Mean(*(part[:, [place]] for part in effects)), 0.05)], [prediction]).word
        for place, prediction in enumerate(REGIONS)
    ]
    naive = read(arms, ())._replace(word=np.concatenate(alone, axis=1))
    assert false_words(naive, arms.truths).mean() > 0.2


def decoded(name: str, speed: Speed, study: int, effect: float, drafts: bool = True, **expect):
    timed, priced = (
        {kind: list(values + effect) for kind, values in zip(KINDS, of[study], strict=True)}
        for of in (speed.timed, speed.priced)
    )
    return decoding(name, timed, priced if drafts else None, drafts=drafts, **expect)


@pytest.mark.parametrize("looks", [(), LOOKS], ids=["at once", "three looks"])
def test_a_study_is_decided_from_its_records_as_it_is_simulated(looks):
    arms = simulated("a blend", 2)
    reading = read(arms, looks)
    for number in range(2):
        text, answers = (
            {name: values[number] for name, values in results.items()} for results in arms.quality.values()
        )
        seeds = {"none": (), "own": SEED_NUMBERS, "baseline": (0,)}
        rows = [sdtp("baseline", text["baseline"], answers["baseline"], seeds=SEED_NUMBERS, versus=None)]
        for name, (level, trained) in ROWS.items():
            own = [values[name] if trained != "none" else values[name][:, 0] for values in (text, answers)]
            rows.append(sdtp(name, *own, seeds=seeds[trained], quality=level))
        # An ordering's effect is a pair's own: each has arms of its own.
        orderings = []
        for place, (name, aspect, versus) in enumerate(ORDERINGS):
            effect = arms.truths[16 + place]
            rows.append(decoded(f"V{place}", arms.speed[versus], number, 0.0, versus != "F1"))
            orderings.append(f"W{place}")
            expect = {aspect: (f"V{place}",)}
            rows.append(decoded(orderings[-1], arms.speed[name], number, effect, **expect))
        confirmatory = Confirmatory(sdtp=tuple(ROWS), dynatree=tuple(orderings))
        found = decide(study(*rows), PaperSettings(confirmatory=confirmatory, looks=looks))
        in_order = [item for aspect in ("text", "retrieval") for item in found if item.aspect == aspect]
        in_order += [item for item in found if item.experiment in orderings]
        assert len(in_order) == len(REGIONS)
        for place, item in enumerate(in_order):
            word = reading.word[number, place]
            said = REGIONS[place].words[word].outcome if word >= 0 else "not_resolved"
            assert (item.outcome, item.comparisons) == (said, reading.comparisons[number, place])
            assert item.p == pytest.approx(reading.p[number, place])
            assert (item.low, item.look) == (
                pytest.approx(reading.low[number, place]),
                reading.look[number, place],
            )


def test_twenty_comparisons_of_a_thing_with_itself_differ_in_nothing():
    rng = np.random.default_rng(3)
    levels = ("same", "up", "down", "up_strong", "down_strong")
    speeds = rng.normal(0, 0.02, (21, TIMED_ALL))
    again = sdtp(
        "baseline", rng.gamma(2.0, 1.0, 60), rng.gamma(2.0, 1.0, 40), speeds[20], versus=None, noise=0.03
    )
    text, answers = (again.values[name].iloc[:, 0].to_numpy() for name in ("text", "retrieval"))
    arms = [
        sdtp(
            f"S{number}",
            np.abs(text + rng.normal(0, 0.03, 60)),
            np.abs(answers + rng.normal(0, 0.1, 40)),
            speeds[number],
            quality=levels[number % 5],
            speed_level=levels[number % 5],
        )
        for number in range(20)
    ]
    names = tuple(arm.experiment.id for arm in arms)
    found = decide(study(again, *arms), PaperSettings(confirmatory=Confirmatory(sdtp=names)))
    assert len(found) == 60
    for item in found:
        expected = "as_expected" if item.level == "same" else "no_difference"
        assert item.outcome in (expected, "not_resolved", "smaller_if_any")
    assert sum(item.outcome in ("as_expected", "no_difference") for item in found) > 30


def test_a_second_round_of_twenty_measured_arms_differs_in_nothing():
    """What was timed twice, its second round set beside its first: no word says that they differ."""
    distinct = {tuple(values): name for name, values in REAL["rounds"].items() if len(values) >= TIMED_ALL}
    names = [*distinct.values()][:20]
    assert len(names) == 20
    for item in decided_speeds([REAL["rounds"][name] for name in names]):
        allowed = ("as_expected",) if item.level == "same" else ("no_difference", "smaller_if_any")
        assert item.outcome in (*allowed, "not_resolved")
    # The same rounds beside one that is twice as fast.
    for item in decided_speeds([np.array(REAL["rounds"][name]) - math.log(2) for name in names]):
        assert item.outcome in (
            ("opposite",) if item.level.startswith("up") else ("different", "as_expected")
        )


def decided_speeds(speeds: list) -> tuple[Decision, ...]:
    """Decisions on a family of arms with these log ratios, of every kind of prediction in turn."""
    levels = ("same", "up", "down", "up_strong", "down_strong")
    arms = [
        sdtp(f"R{number}", np.ones(len(own)), speed=own, speed_level=levels[number % len(levels)])
        for number, own in enumerate(speeds)
    ]
    names = tuple(arm.experiment.id for arm in arms)
    baseline = sdtp("baseline", np.ones(10), speed=[0.0] * 10, versus=None)
    return decide(study(baseline, *arms), PaperSettings(confirmatory=Confirmatory(sdtp=names)))
