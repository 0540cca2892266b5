"""Decisions on the predictions of a study: classes, family, looks, noise, and what was not tested."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.evidence.decisions import Prediction, decide, decided, predictions
from ablations.evidence.effects import Effects
from ablations.evidence.expectations import Confirmatory, Look
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.statistics import crossed_mean, pooled, sample_mean, seed_variance
from tests.evidence.arms import decoding, sdtp, study

RNG = np.random.default_rng(0)
TEXT, ANSWERS, TIMES = (RNG.normal(5.0, 0.02, 30), RNG.normal(4.0, 0.05, 20), RNG.normal(0.0, 0.01, 9))


def settings(*sdtp_ids, dynatree=(), looks=()):
    return PaperSettings(confirmatory=Confirmatory(sdtp=sdtp_ids, dynatree=dynatree), looks=looks)


def baseline(**more):
    return sdtp("baseline", TEXT, ANSWERS, TIMES, versus=None, **more)


def jitter(n, size=0.02, seed=1):
    return np.random.default_rng(seed).normal(0, size, n)


def row(name, text=0.0, answers=0.0, speed=0.0, **more):
    """An experiment whose effects are about so large."""
    return sdtp(
        name, TEXT + text + jitter(30), ANSWERS + answers + jitter(20), TIMES + speed + jitter(9), **more
    )


def by_aspect(decisions, name):
    return {item.aspect: item for item in decisions if item.experiment == name}


def test_predictions_of_a_row_name_what_they_are_measured_against():
    arm = sdtp("A1", quality="down", speed_level="up_strong", versus="M1", less_traffic=("G2",))
    assert predictions(arm.experiment) == [
        Prediction("A1", "text", "down", "M1"),
        Prediction("A1", "retrieval", "down", "M1"),
        Prediction("A1", "speed", "up_strong", "M1"),
        Prediction("A1", "less_traffic", "down", "G2"),
    ]


def test_a_prediction_of_its_own_goes_before_that_of_quality():
    arm = sdtp("A1", quality="down", retrieval_level="down_strong")
    assert [(item.aspect, item.level) for item in predictions(arm.experiment)] == [
        ("text", "down"),
        ("retrieval", "down_strong"),
    ]


def test_quality_is_a_crash_or_exactness_where_it_says_so():
    assert predictions(sdtp("B2", quality="crash").experiment) == [
        Prediction("B2", "crash", "down", "baseline")
    ]
    arm = decoding("F4", quality="same", above=("F3",), below=("X",), about=("F2",))
    assert [item[1:] for item in predictions(arm.experiment)] == [
        ("exact", "same", None),
        ("above", "up", "F3"),
        ("below", "down", "X"),
        ("about", "same", "F2"),
    ]


def test_quality_and_speed_of_a_confirmatory_row_are_decided():
    arms = study(baseline(), row("A7", 0.2, 0.8, 0.3, quality="down", speed_level="up"))
    found = decide(arms, settings("A7"))
    assert [item.aspect for item in found] == ["text", "retrieval", "speed"]
    assert {item.kind for item in found} == {"confirmatory"}
    assert {item.outcome for item in found} == {"as_expected"}
    assert decided(found) == (3, 3)
    text = found[0]
    assert text.effect == pytest.approx(0.2, abs=0.02)
    assert 0.0 < text.low < text.effect < text.high
    assert (text.look, text.comparisons, text.reason) == (1, 3, None)
    assert text.p_adjusted <= 0.05


def test_the_reading_is_the_effect_at_its_level():
    arms = study(baseline(), row("A7", 0.2, 0.8, 0.3, quality="down", speed_level="up"))
    differences = jitter(30) + 0.2
    for item in decide(arms, settings("A7")):
        if item.aspect == "text":
            low, high = sample_mean(differences).interval(0.05 / item.comparisons)
            assert (item.low, item.high) == (pytest.approx(low), pytest.approx(high))


def test_a_fall_of_the_divergence_is_the_opposite_of_a_loss():
    arms = study(baseline(), row("A7", -0.2, 0.0, quality="down"))
    found = by_aspect(decide(arms, settings("A7")), "A7")
    assert (found["text"].outcome, found["text"].effect < 0) == ("opposite", True)
    assert found["retrieval"].outcome == "no_difference"


def test_exploratory_rows_have_no_word():
    arms = study(
        baseline(),
        row("A7", 0.2, 0.8, 0.3, quality="down", speed_level="up"),
        row("A8", 0.2, text_level="up"),
    )
    found = decide(arms, settings("A7"))
    (exploratory,) = by_aspect(found, "A8").values()
    assert (exploratory.kind, exploratory.outcome, exploratory.reason) == ("exploratory", None, "exploratory")
    assert (exploratory.p, exploratory.low, exploratory.look) == (None, None, None)
    assert decided(found) == (3, 3)
    alone = decide(study(*[arm for name, arm in arms.items() if name != "A8"]), settings("A7"))
    assert found[:3] == alone


@pytest.mark.parametrize("ended", ["crashed", "not_run"])
def test_what_was_not_tested_keeps_its_place_in_the_family(ended):
    measured = row("A7", 0.2, text_level="down")
    missing = sdtp("A8", TEXT, ANSWERS, ended=ended, quality="down")
    found = decide(study(baseline(), measured, missing), settings("A7", "A8"))
    assert [item.outcome for item in found] == ["as_expected", None, None]
    assert [item.reason for item in found] == [None, ended, ended]
    assert found[0].comparisons == 3
    assert {item.kind for item in found} == {"confirmatory"}
    assert decided(found) == (1, 3)


def test_without_its_comparator_nothing_is_tested():
    arms = study(sdtp("baseline", ended="not_run", versus=None), row("A7", 0.2, 0.8, quality="down"))
    found = decide(arms, settings("A7"))
    assert [(item.outcome, item.reason) for item in found] == [(None, "no_comparator")] * 2
    assert decided(found) == (0, 2)


def test_speeds_of_different_devices_are_not_compared():
    arms = study(baseline(device="Other"), row("A7", speed=0.3, speed_level="up"))
    found = by_aspect(decide(arms, settings("A7")), "A7")
    assert (found["speed"].outcome, found["speed"].reason) == (None, "no_comparator")


def test_equal_differences_are_not_resolved():
    arms = study(baseline(), sdtp("A7", TEXT + 0.5, text_level="down"))
    (found,) = decide(arms, settings("A7"))
    assert (found.outcome, found.reason, found.low) == ("not_resolved", "no_interval", None)


def test_no_difference_at_all_is_known():
    arms = study(baseline(), sdtp("A7", TEXT, text_level="down"))
    (found,) = decide(arms, settings("A7"))
    assert (found.outcome, found.low, found.high) == ("no_difference", 0.0, 0.0)


def test_an_expected_crash_is_a_fact():
    crashed = sdtp("B2", ended="crashed", quality="crash", speed_level="down")
    found = by_aspect(decide(study(baseline(), crashed), settings("B2")), "B2")
    assert (found["crash"].kind, found["crash"].outcome) == ("counted", "as_expected")
    assert (found["speed"].outcome, found["speed"].reason) == (None, "crashed")
    ran = decide(study(baseline(), row("B2", quality="crash")), settings("B2"))
    assert (ran[0].kind, ran[0].outcome) == ("counted", "opposite")
    missing = decide(study(baseline(), sdtp("B2", ended="not_run", quality="crash")), settings("B2"))
    assert (missing[0].outcome, missing[0].reason) == (None, "not_run")


@pytest.mark.parametrize(
    ("own", "theirs", "outcome", "reason"),
    [
        (1000, 1001, "as_expected", None),
        (1000, 1000, "no_difference", None),
        (1001, 1000, "opposite", None),
        (1000, None, None, "not_measured"),
        (None, 1000, None, "not_measured"),
    ],
)
def test_traffic_is_counted(own, theirs, outcome, reason):
    arms = study(
        sdtp("G1", boundary_bytes=own, less_traffic=("G2",)),
        sdtp("G2", boundary_bytes=theirs),
    )
    (found,) = decide(arms, settings("G1"))
    assert (found.kind, found.outcome, found.reason) == ("counted", outcome, reason)
    (alone,) = decide(study(arms["G1"]), settings("G1"))
    assert (alone.outcome, alone.reason) == (None, "no_comparator")


@pytest.mark.parametrize(
    ("matched", "ties", "outcome"),
    [(True, 0, "as_expected"), (False, 1, "as_expected"), (False, 0, "different")],
)
def test_exactness_is_counted(matched, ties, outcome):
    arms = study(decoding("F4", matched=matched, ties=ties, quality="same"))
    (found,) = decide(arms, settings(dynatree=("F4",)))
    assert (found.kind, found.outcome) == ("counted", outcome)


@pytest.mark.parametrize(
    ("level", "flops", "outcome"),
    [
        ("same", 610.0, "as_expected"),
        ("same", 700.0, "different"),
        ("down", 700.0, "as_expected"),
        ("down", 601.0, "no_difference"),
        ("down", 500.0, "opposite"),
        ("down_strong", 700.0, "smaller"),
        ("up_strong", 300.0, "as_expected"),
    ],
)
def test_the_speed_of_a_row_that_is_not_timed_is_counted(level, flops, outcome):
    untimed = sdtp("A2", TEXT, timed=False, flops=flops, speed_level=level)
    arms = study(baseline(flops=600.0), untimed)
    (found,) = decide(arms, settings("A2"))
    assert (found.kind, found.outcome, found.p, found.low) == ("counted", outcome, None, None)
    assert found.effect == pytest.approx(math.log(600.0 / flops))
    # It is counted whether its row is confirmatory or not, and has no place in the family.
    assert decide(arms, settings()) == (found,)
    assert decided([found]) == (0, 0)


def test_what_an_experiment_does_not_measure_is_no_part_of_the_family():
    arms = study(baseline(), sdtp("A2", TEXT + 0.2 + jitter(30), quality="down"))
    found = by_aspect(decide(arms, settings("A2")), "A2")
    assert (found["text"].outcome, found["text"].comparisons) == ("as_expected", 1)
    assert (found["retrieval"].kind, found["retrieval"].reason) == ("exploratory", "not_measured")


# Floor 0.1: a difference of 0.08 is none, whatever its interval.
@pytest.mark.parametrize(
    ("effect", "level", "outcome", "reason"),
    [
        (0.08, "up", "not_resolved", "below_noise"),
        (0.08, "down", "not_resolved", "below_noise"),
        (0.08, "up_strong", "not_resolved", "below_noise"),
        (0.08, "same", "not_resolved", "below_noise"),
        (0.15, "up", "as_expected", None),
        (0.15, "same", "different", None),
        (0.005, "same", "as_expected", None),
        (0.0, "up", "no_difference", None),
    ],
)
def test_no_difference_of_speed_below_the_noise_is_called_one(effect, level, outcome, reason):
    arm = sdtp("A7", TEXT, speed=TIMES + effect + 0.001 * jitter(9) / 0.02, speed_level=level)
    arms = study(baseline(noise=0.1), arm)
    (found,) = decide(arms, settings("A7"))
    assert (found.outcome, found.reason) == (outcome, reason)
    assert found.low is not None


def test_the_noise_of_one_method_is_not_the_others():
    arms = study(
        baseline(noise=0.5),
        decoding("F2", jitter(9, 0.01)),
        decoding("F4", 0.08 + jitter(9, 0.01, 2), noise=0.01, above=("F2",)),
    )
    (found,) = decide(arms, settings(dynatree=("F4",)))
    assert found.outcome == "as_expected"


def test_orderings_are_read_against_the_named_experiments():
    arms = study(
        decoding("F2", 0.5 + jitter(9, 0.01, 3)),
        decoding("F3", jitter(9, 0.01, 4)),
        decoding("F4", 0.51 + jitter(9, 0.01, 5), above=("F3",), below=("F2",), about=("F2",)),
    )
    found = by_aspect(decide(arms, settings(dynatree=("F4",))), "F4")
    assert {aspect: item.outcome for aspect, item in found.items()} == {
        "above": "as_expected",
        "below": "no_difference",
        "about": "as_expected",
    }
    assert [item.against for item in found.values()] == ["F3", "F2", "F2"]


LOOKS = (
    Look(documents=10, retrieval=10, alpha=0.005),
    Look(documents=20, retrieval=15, alpha=0.015),
    Look(documents=30, retrieval=20, alpha=0.03),
)


def test_a_look_is_at_its_first_documents_and_prompts_alone():
    arms = study(baseline(), row("A7", 0.2, 0.8, quality="down"))
    found = by_aspect(decide(arms, settings("A7", looks=LOOKS)), "A7")
    low, high = sample_mean(0.2 + jitter(30)[:10]).interval(0.005 / 2)
    assert (found["text"].look, found["text"].low) == (1, pytest.approx(low))
    assert found["text"].high == pytest.approx(high)
    low, _ = sample_mean(0.8 + jitter(20)[:10]).interval(0.005 / 2)
    assert found["retrieval"].low == pytest.approx(low)


def test_what_a_look_leaves_open_is_read_again_at_the_next():
    late = np.where(np.arange(30) < 10, jitter(30, 0.5), 0.3 + jitter(30, 0.05))
    arms = study(baseline(), sdtp("A7", TEXT + late, text_level="down"))
    (found,) = decide(arms, settings("A7", looks=LOOKS))
    assert found.look > 1
    (at_once,) = decide(arms, settings("A7"))
    assert at_once.look == 1


def test_only_looks_that_are_reached_are_read():
    few = sdtp("baseline", TEXT[:25], ANSWERS, versus=None)
    arm = sdtp("A7", TEXT[:25] + jitter(25, 0.5), text_level="down")
    (found,) = decide(study(few, arm), settings("A7", looks=LOOKS))
    assert (found.look, found.outcome) == (2, "not_resolved")
    fewer_prompts = sdtp("baseline", TEXT, ANSWERS[:12], versus=None)
    # Each measure by itself: text does not wait for prompts.
    (found,) = decide(study(fewer_prompts, arm), settings("A7", looks=LOOKS))
    assert found.look == 2
    arm = sdtp("A7", TEXT[:25], ANSWERS[:12] + jitter(12, 0.5), retrieval_level="down")
    (found,) = decide(study(fewer_prompts, arm), settings("A7", looks=LOOKS))
    assert found.look == 1


def test_before_the_first_look_nothing_is_said():
    few = sdtp("baseline", TEXT[:5], versus=None)
    arms = study(few, sdtp("A7", TEXT[:5] + 0.5 + jitter(5), text_level="down"))
    (found,) = decide(arms, settings("A7", looks=LOOKS))
    assert (found.outcome, found.reason, found.look) == ("not_resolved", "no_look", None)


def test_a_row_that_did_not_go_on_is_not_read_on_fewer_documents():
    arms = study(baseline(), sdtp("A7", TEXT[:12] + jitter(12, 0.5), text_level="down"))
    (found,) = decide(arms, settings("A7", looks=LOOKS))
    assert (found.look, found.outcome) == (1, "not_resolved")


def test_decoding_is_read_on_all_its_prompts_at_every_look():
    few = sdtp("baseline", TEXT[:25], ANSWERS, versus=None)
    arms = study(
        few, decoding("F2", jitter(9, 0.01, 3)), decoding("F4", 0.5 + jitter(9, 0.01), above=("F2",))
    )
    (found,) = decide(arms, settings(dynatree=("F4",), looks=LOOKS))
    assert (found.look, found.outcome) == (1, "as_expected")
    differences = 0.5 + jitter(9, 0.01) - jitter(9, 0.01, 3)
    assert found.low == pytest.approx(sample_mean(differences).interval(LOOKS[0].alpha)[0])


def trained(name, seeds=(0, 1, 2), text=0.0, seed=7, spread=0.02, **more):
    """A trained experiment whose documents and trainings differ."""
    rng = np.random.default_rng(seed)
    values = TEXT[:, None] + text + rng.normal(0, 0.02, (30, 1)) + rng.normal(0, spread, 3)
    values = values + rng.normal(0, 0.01, (30, 3))
    return sdtp(name, values[:, list(seeds)], seeds=seeds, **more)


def test_trained_rows_are_read_over_documents_and_trainings():
    arms = study(
        trained("baseline", seed=1, versus=None),
        trained("A4", seed=2, text_level="down"),
        trained("A5", text=0.3, seed=3, text_level="down"),
    )
    wanted = settings("A4", "A5")
    own, other, third = (arms[name].values["text"].to_numpy() for name in ("A5", "baseline", "A4"))
    pool = pooled([seed_variance(third - other), seed_variance(own - other)], 3)
    expected = crossed_mean(own - other, pool)
    found = by_aspect(decide(arms, wanted), "A5")["text"]
    low, high = expected.interval(0.05 / found.comparisons)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    comparison = Effects(arms, wanted).comparison("A5", "baseline", "text")
    low, high = expected.interval(0.05)
    assert comparison.estimate.low == pytest.approx(low)
    assert comparison.estimate.high == pytest.approx(high)
    assert comparison.seeds == 3
    alone = sample_mean((own - other).mean(axis=1)).interval(0.05)
    assert comparison.these_trainings == pytest.approx(alone)


def test_an_untrained_row_has_no_part_in_the_pool_of_trainings():
    arms = study(
        trained("baseline", seed=1, versus=None),
        trained("A4", seed=2, spread=0.5, text_level="down"),
        sdtp("M1", TEXT + jitter(30), text_level="down"),
    )
    base = arms["baseline"].values["text"].to_numpy()
    untrained = (TEXT + jitter(30))[:, None] - base
    own = arms["A4"].values["text"].to_numpy() - base
    expected = {"M1": crossed_mean(untrained), "A4": crossed_mean(own, pooled([seed_variance(own)], 3))}
    for name, mean in expected.items():
        comparison = Effects(arms, settings("A4", "M1")).comparison(name, "baseline", "text")
        low, high = mean.interval(0.05)
        assert (comparison.estimate.low, comparison.estimate.high) == (
            pytest.approx(low),
            pytest.approx(high),
        )


def test_a_row_of_one_training_is_paired_with_that_training():
    arms = study(
        trained("baseline", seed=1, versus=None), trained("A7", seeds=(1,), seed=2, text_level="down")
    )
    difference = arms["A7"].values["text"][1] - arms["baseline"].values["text"][1]
    (found,) = decide(arms, settings("A7"))
    low, high = sample_mean(difference.to_numpy()).interval(0.05)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@hypothesis.settings(deadline=None, max_examples=8)
@given(st.permutations(["A2", "A5", "A7", "M1"]))
def test_the_order_of_experiments_does_not_matter(order):
    rows = {
        "A2": row("A2", 0.02, 0.3, quality="down_strong"),
        "A5": row("A5", 0.2, 0.8, 0.1, quality="down", speed_level="down"),
        "A7": row("A7", 0.0, 0.0, 0.3, quality="same", speed_level="up_strong"),
        "M1": row("M1", -0.1, 0.2, quality="down"),
    }
    expected = decide(study(baseline(), *rows.values()), settings(*rows))
    shuffled = decide(study(baseline(), *[rows[name] for name in order]), settings(*order))
    assert sorted(map(repr, shuffled)) == sorted(map(repr, expected))
