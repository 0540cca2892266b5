"""The truth study's table: what misses, what is contradicted, and how often that is to be expected."""

import numpy as np
import pytest

from ablations.evidence.expectations import Confirmatory
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.statistics import kinds_of
from tests.evidence.arms import decoding, sdtp, study
from tests.evidence.truth import as_by_default, chance_of_miss, rows, table

SETTINGS = PaperSettings(confirmatory=Confirmatory(sdtp=("A",)))


def arms(first: float, rest: float):
    """An arm whose effect on the first 60 documents is another than on all others."""
    rng = np.random.default_rng(0)
    effects = np.concatenate([np.full(60, first), np.full(68, rest)]) + rng.normal(0.0, 0.05, 128)
    return study(sdtp("baseline", np.ones(128)), sdtp("A", 1 + effects, text_level="down"))


def test_an_effect_that_later_documents_confirm_is_inside():
    (row,) = rows(arms(0.3, 0.3), SETTINGS)
    assert (row.name, row.n, row.every, row.word) == ("A text", 60, 128, "as expected")
    assert not row.missed
    assert not row.contradicted
    assert [*table([row])][-1].startswith("0 of 1 intervals miss; 0.01 are expected")


def test_an_effect_that_later_documents_turn_around_is_a_miss_and_a_false_word():
    (row,) = rows(arms(0.3, -0.6), SETTINGS)
    assert row.truth < 0 < row.effect
    assert row.missed
    assert row.contradicted
    assert [*table([row])][2].endswith("| no | as expected | no |")


def test_the_first_of_all_miss_the_mean_of_all_as_often_as_is_said():
    values = np.random.default_rng(0).normal(size=(20_000, 128))
    first = values[:, :60]
    errors = np.abs(first.mean(axis=1) - values.mean(axis=1)) / (first.std(axis=1, ddof=1) / np.sqrt(60))
    assert (errors > 2.001).mean() == pytest.approx(chance_of_miss(59, 60 / 128), abs=0.002)


def drafting(first: float, rest: float):
    """An arm whose speed-up on the first 20 prompts of each of three kinds is another than on all others.

    Of 67 prompts of a kind all are priced, and 14 are timed.
    """
    rng = np.random.default_rng(0)
    kinds = ("code", "documentation", "chat")
    priced = {
        kind: np.concatenate([np.full(20, first), np.full(47, rest)]) + rng.normal(0.0, 0.1, 67)
        for kind in kinds
    }
    speed = {kind: priced[kind][:14] + rng.normal(0.0, 0.01, 14) for kind in kinds}
    return study(
        decoding("F1", {kind: np.zeros(14) for kind in kinds}, drafts=False),
        decoding("F2", speed, priced, above=("F1",)),
    )


def test_of_decoding_the_first_timed_and_replayed_prompts_of_each_kind_are_read():
    settings = PaperSettings(confirmatory=Confirmatory(dynatree=("F2",)))
    (same,) = rows(drafting(0.3, 0.3), settings)
    assert (same.name, same.n, same.every, same.word) == ("F2 above F1", 60, 201, "as expected")
    assert same.effect == pytest.approx(0.3, abs=0.05)
    assert not same.missed
    assert 0.005 < same.chance < 0.03
    (turned,) = rows(drafting(0.3, -0.6), settings)
    assert turned.effect == pytest.approx(0.3, abs=0.05)
    assert turned.truth == pytest.approx((20 * 0.3 - 47 * 0.6) / 67, abs=0.05)
    assert turned.missed
    assert turned.contradicted


def test_first_prompts_are_of_each_kind():
    arm = as_by_default(drafting(0.3, 0.3)["F2"])
    assert len(arm.priced) == 60
    assert arm.values["speed"].groupby(kinds_of(arm.values["speed"].index)).size().tolist() == [5, 5, 5]
    assert set(arm.values["speed"].index) <= set(arm.priced.index)
