"""The truth study's table: what misses, what is contradicted, and how often that is to be expected."""

import numpy as np
import pytest

from ablations.evidence.expectations import Confirmatory
from ablations.evidence.inputs import PaperSettings
from tests.evidence.arms import sdtp, study
from tests.evidence.truth import chance_of_miss, rows, table

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
    assert (errors > 2.001).mean() == pytest.approx(chance_of_miss(60, 128), abs=0.002)
