"""What is wrong with a spec is named by the configuration's keys."""

import pytest

from ablations.core.errors import UserError
from ablations.specs.dynatree.arm import Shape, TreePruning
from ablations.specs.dynatree.grid import GridTree
from ablations.study.planning.jobs import configured_by

ELSEWHERE = {"pruning": "paper.size", "shap": "nowhere"}


@pytest.mark.parametrize(
    ("shape", "pruning", "message"),
    [
        (
            {"depth": 3},
            {"max_nodes": 2},
            "paper.size.max_nodes: 2 nodes cannot hold a path of depth 3; raise",
        ),
        ({"method": "linear"}, {}, "mine.shape.branching: a linear draft is one path; set it to 1"),
    ],
)
def test_keys_of_a_spec_become_those_of_the_configuration(shape, pruning, message):
    with pytest.raises(UserError) as caught, configured_by("mine", ELSEWHERE):
        GridTree(shape=Shape(**shape), pruning=TreePruning(**pruning))
    assert str(caught.value).startswith(message)


def test_a_problem_of_the_whole_is_the_keys_own():
    with pytest.raises(UserError, match=r"^mine: "), configured_by("mine"):
        GridTree.model_validate("tree")
