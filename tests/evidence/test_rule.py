"""Rule S against a slow literal transcription of its derivation, and what follows from it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablations.evidence.expectations import Thresholds
from ablations.evidence.rule import Region, read_family, region
from ablations.evidence.statistics import UNDEFINED, Mean, sample_mean, stacked

MARGIN, STRONG = 0.05, 0.3
KINDS = {"above": Region(1, MARGIN), "strong": Region(1, MARGIN, STRONG), "same": Region(0, MARGIN)}


def p_of(mean: Mean, cut: float) -> float:
    return float(mean.p(cut))


def literal(looks: list[tuple[list[Mean], float]], kinds: list[str]) -> list[tuple]:
    """Outcome, r, p_settle and look of each prediction, by the list of steps of the derivation."""
    cuts = {
        "above": (-MARGIN, 0, MARGIN),
        "strong": (-MARGIN, 0, MARGIN, STRONG),
        "same": (-MARGIN, MARGIN),
    }
    family = set(range(len(kinds)))
    printed: dict[int, tuple] = {}
    last: dict[int, tuple] = {}
    for number, (means, alpha) in enumerate(looks, 1):
        present = set(family)
        settle = {i: max(p_of(means[i], cut) for cut in cuts[kinds[i]]) for i in family}
        read_at: dict[int, int] = {}
        while True:
            r = len(family)
            removed = {i for i in family if settle[i] <= alpha / r}
            if not removed:
                break
            read_at |= dict.fromkeys(removed, r)
            family -= removed
        read_at |= {i: len(family) for i in family}
        for i in present:
            if i in printed or math.isnan(float(means[i].value)):
                continue
            low, high = means[i].interval(alpha / read_at[i])
            outcome = word(kinds[i], float(low), float(high))
            last[i] = (outcome, read_at[i], settle[i], number)
            if outcome != "not_resolved":
                printed[i] = last[i]
    return [printed.get(i, last.get(i)) for i in range(len(kinds))]


def word(kind: str, low: float, high: float) -> str:
    if kind == "same":
        if low > -MARGIN and high < MARGIN:
            return "as_expected"
        return "different" if low > MARGIN or high < -MARGIN else "not_resolved"
    if kind == "above" and low > 0:
        return "as_expected"
    if kind == "strong" and low > STRONG:
        return "as_expected"
    if kind == "strong" and low > 0 and high < STRONG:
        return "smaller"
    if high < 0:
        return "opposite"
    if low > -MARGIN and high < MARGIN:
        return "no_difference"
    return "smaller_if_any" if kind == "strong" and high < STRONG else "not_resolved"


def named(reading, regions: list[Region]) -> list[tuple]:
    """A reading in the form of `literal`."""
    return [
        (
            regions[i].words[reading.word[i]].outcome if reading.word[i] >= 0 else "not_resolved",
            int(reading.comparisons[i]),
            pytest.approx(float(reading.p[i])),
            int(reading.look[i]),
        )
        for i in range(len(regions))
    ]


def effects(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Documents of k effects of many sizes and spreads, shape (k, n)."""
    sizes = rng.choice([-0.4, -0.06, -0.02, 0.0, 0.03, 0.05, 0.1, 0.25, 0.3, 0.5], (k, 1))
    spreads = rng.choice([0.01, 0.05, 0.3], (k, 1))
    return sizes + spreads * (rng.gamma(2.0, 1.0, (k, n)) - 2.0)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=12), st.integers(0, 10**6))
def test_a_family_is_read_as_the_derivation_says(kinds, seed):
    values = effects(np.random.default_rng(seed), len(kinds), 40)
    regions = [KINDS[kind] for kind in kinds]
    reading = read_family([(sample_mean(values), 0.05)], regions)
    assert named(reading, regions) == literal([([sample_mean(row) for row in values], 0.05)], kinds)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=8), st.integers(0, 10**6), st.data())
def test_looks_are_read_as_the_derivation_says(kinds, seed, data):
    values = effects(np.random.default_rng(seed), len(kinds), 60)
    regions = [KINDS[kind] for kind in kinds]
    # Which predictions go on is chosen freely.
    looks = []
    for documents, alpha in ((20, 0.0025), (40, 0.0075), (60, 0.04)):
        looked_at = [data.draw(st.booleans()) for _ in kinds]
        means = [
            sample_mean(row[:documents]) if chosen else UNDEFINED
            for row, chosen in zip(values, looked_at, strict=True)
        ]
        looks.append((means, alpha))
    found = named(read_family([(stacked(means), alpha) for means, alpha in looks], regions), regions)
    expected = literal(looks, kinds)
    for one, other in zip(found, expected, strict=True):
        assert one == other if other else one[0] == "not_resolved" and one[3] == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=2, max_size=12), st.integers(0, 10**6), st.randoms())
def test_the_order_of_predictions_does_not_matter(kinds, seed, random):
    values = effects(np.random.default_rng(seed), len(kinds), 40)
    order = random.sample(range(len(kinds)), len(kinds))
    regions = [KINDS[kind] for kind in kinds]
    reading = read_family([(sample_mean(values), 0.05)], regions)
    shuffled = read_family([(sample_mean(values[order]), 0.05)], [regions[i] for i in order])
    for one, other in zip(reading, shuffled, strict=True):
        assert one[order] == pytest.approx(other)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=12), st.integers(0, 10**6))
def test_the_step_down_says_at_least_what_bonferroni_says(kinds, seed):
    values = effects(np.random.default_rng(seed), len(kinds), 40)
    regions = [KINDS[kind] for kind in kinds]
    reading = read_family([(sample_mean(values), 0.05)], regions)
    assert (reading.comparisons <= len(kinds)).all()
    for place, kind in enumerate(kinds):
        low, high = sample_mean(values[place]).interval(0.05 / len(kinds))
        assert low - 1e-12 <= reading.low[place] <= reading.high[place] <= high + 1e-12
        if word(kind, low, high) != "not_resolved":
            assert reading.word[place] >= 0


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=12), st.integers(0, 10**6))
def test_a_word_is_there_where_its_adjusted_p_is_at_most_the_level(kinds, seed):
    values = effects(np.random.default_rng(seed), len(kinds), 40)
    reading = read_family([(sample_mean(values), 0.05)], [KINDS[kind] for kind in kinds])
    has_word = reading.word >= 0
    adjusted = reading.comparisons * reading.word_p
    assert (adjusted[has_word] <= 0.05).all()
    assert (adjusted[~has_word] > 0.05).all()


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=8), st.integers(0, 10**6))
def test_a_study_is_decided_as_if_it_were_the_only_one(kinds, seed):
    rng = np.random.default_rng(seed)
    studies = np.stack([effects(rng, len(kinds), 30) for _ in range(5)])
    regions = [KINDS[kind] for kind in kinds]
    together = read_family([(sample_mean(studies), 0.05)], regions)
    for number, study in enumerate(studies):
        alone = read_family([(sample_mean(study), 0.05)], regions)
        for one, other in zip(together, alone, strict=True):
            assert one[number] == pytest.approx(other)


def mean_at(value: float, error: float) -> Mean:
    """A mean whose interval is nearly normal, without skew."""
    return Mean(np.array(value), *(np.array([x]) for x in (error, 1000.0, 0.0)))


HALF = stats.t.ppf(0.975, 1000)
WORDS = [
    ("above", 0.03, 0.01, "as_expected"),
    ("above", -0.03, 0.01, "opposite"),
    ("above", 0.01, 0.01, "no_difference"),
    ("above", 0.04, 0.03, "not_resolved"),
    ("strong", 0.40, 0.04, "as_expected"),
    ("strong", 0.20, 0.04, "smaller"),
    ("strong", 0.02, 0.005, "smaller"),
    ("strong", -0.02, 0.005, "opposite"),
    ("strong", 0.01, 0.015, "no_difference"),
    ("strong", 0.10, 0.08, "smaller_if_any"),
    ("strong", 0.30, 0.04, "not_resolved"),
    ("strong", 0.10, 0.30, "not_resolved"),
    ("same", 0.02, 0.01, "as_expected"),
    ("same", 0.10, 0.02, "different"),
    ("same", -0.10, 0.02, "different"),
    ("same", 0.04, 0.02, "not_resolved"),
]


@pytest.mark.parametrize(("kind", "value", "error", "outcome"), WORDS)
def test_words(kind, value, error, outcome):
    assert KINDS[kind].word(value - HALF * error, value + HALF * error).outcome == outcome
    reading = read_family([(stacked([mean_at(value, error)]), 0.05)], [KINDS[kind]])
    assert named(reading, [KINDS[kind]])[0][0] == outcome


@pytest.mark.parametrize(("kind", "value", "error", "outcome"), WORDS)
def test_an_expected_fall_is_the_mirror_image(kind, value, error, outcome):
    mirrored = KINDS[kind]._replace(sign=-KINDS[kind].sign)
    reading = read_family([(stacked([mean_at(-value, error)]), 0.05)], [mirrored])
    assert named(reading, [mirrored])[0][0] == outcome


def test_a_prediction_that_is_settled_makes_room_for_the_next():
    means = [mean_at(1.0, 0.01), mean_at(0.5, 0.01), mean_at(2.2 * 0.1, 0.1)]
    regions = [KINDS["above"]] * 3
    reading = read_family([(stacked(means), 0.05)], regions)
    assert reading.comparisons.tolist() == [3, 3, 1]
    assert named(reading, regions)[2][0] == "as_expected"
    # With two neighbours that are not settled it would have to be clear of zero at a third of the level.
    crowded = read_family([(stacked([mean_at(0.01, 0.1), *means[2:], mean_at(0.01, 0.1)]), 0.05)], regions)
    assert named(crowded, regions)[1][:2] == ("not_resolved", 3)


def test_a_word_alone_makes_no_room():
    # Above zero at half the level, but which side of the margin is open: it stays in the family.
    means = [mean_at(0.05, 0.02), mean_at(0.21, 0.1)]
    reading = read_family([(stacked(means), 0.05)], [KINDS["above"]] * 2)
    assert named(reading, [KINDS["above"]] * 2)[0][:2] == ("as_expected", 2)
    assert named(reading, [KINDS["above"]] * 2)[1][:2] == ("not_resolved", 2)


def test_what_is_missing_keeps_its_place_in_the_family():
    present = mean_at(0.21, 0.1)
    alone = read_family([(stacked([present]), 0.05)], [KINDS["above"]])
    beside = read_family([(stacked([present, UNDEFINED]), 0.05)], [KINDS["above"]] * 2)
    assert (alone.comparisons[0], alone.word[0]) == (1, 0)
    assert (beside.comparisons[0], beside.word[0]) == (2, -1)
    assert (beside.word[1], beside.p[1], beside.look[1]) == (-1, 1.0, 0)


def test_a_printed_word_stays():
    looks = [(stacked([mean_at(0.4, 0.1)]), 0.01), (stacked([mean_at(-0.4, 0.01)]), 0.04)]
    reading = read_family(looks, [KINDS["above"]])
    assert named(reading, [KINDS["above"]])[0] == ("as_expected", 1, pytest.approx(6.9e-4, rel=0.3), 1)


def test_levels_mean_gains_and_losses():
    thresholds = Thresholds()
    assert region("down", "text", thresholds) == Region(1, thresholds.text_same)
    assert region("up_strong", "retrieval", thresholds) == Region(
        -1, thresholds.retrieval_same, thresholds.retrieval_strong
    )
    assert region("down", "speed", thresholds) == Region(-1, math.log(thresholds.speed_same))
    assert region("up_strong", "speed", thresholds).strong == pytest.approx(math.log(thresholds.speed_strong))
    assert region("same", "speed", thresholds).sign == 0


def test_the_cuts_are_those_of_the_derivation():
    assert KINDS["above"].cuts == (-MARGIN, 0, MARGIN)
    assert KINDS["strong"].cuts == (-MARGIN, 0, MARGIN, STRONG)
    assert KINDS["same"].cuts == (-MARGIN, MARGIN)
    assert Region(-1, MARGIN, STRONG).cuts == (-STRONG, -MARGIN, 0, MARGIN)
