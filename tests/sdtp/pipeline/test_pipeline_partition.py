"""Layers and stages of each rank."""

import pytest

from ablations.core.errors import UserError
from ablations.sdtp.pipeline.partition import LayerRange, partition


@pytest.mark.parametrize("prune", ["before", "after"])
def test_every_layer_and_stage_runs_once(prune):
    stages = [0, 2, 3, 4, 7, 10]
    parts = partition(11, stages, 3, prune)
    assert [list(part.layers) for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [stage for part in parts for stage in part.stages] == list(range(6))


def test_a_stage_on_a_boundary_is_the_senders_or_the_receivers():
    assert partition(6, [1, 3, 5], 2, "before") == (
        LayerRange(range(3), range(2)),
        LayerRange(range(3, 6), range(2, 3)),
    )
    assert partition(6, [1, 3, 5], 2, "after") == (
        LayerRange(range(3), range(1)),
        LayerRange(range(3, 6), range(1, 3)),
    )


def test_the_default_ten_stages_have_one_on_the_boundary_of_two_ranks():
    layers = [4, 7, 10, 12, 15, 18, 21, 23, 26, 29]
    before, after = partition(30, layers, 2, "before"), partition(30, layers, 2, "after")
    assert (len(before[0].stages), len(after[0].stages)) == (5, 4)


def test_a_rank_may_have_no_stage():
    first, second = partition(6, [4], 2, "before")
    assert (list(first.stages), list(second.stages)) == ([], [0])


def test_after_without_a_stage_on_a_boundary_is_refused():
    with pytest.raises(UserError, match=r"schedule.layers \[1, 5\] .* layers \[3\] .*pipeline.ranks"):
        partition(6, [1, 5], 2, "after")


def test_more_ranks_than_layers_are_refused():
    with pytest.raises(UserError, match=r"^pipeline.ranks: 7 ranks for 6 layers"):
        partition(6, [1], 7, "before")
