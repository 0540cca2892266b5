"""Thirty kills at random moments lose nothing."""

import random

import pytest

from tests.workflow.kill_storm import storm


@pytest.mark.long
def test_kills_at_random_moments_lose_nothing(tmp_path):
    storm(tmp_path, 30, random.Random(0), 40)
