import pytest
import torch

from ablations.sdtp.pruned.selection import select, threshold_count, top_p_count
from ablations.specs.sdtp.counts import Protected


@pytest.mark.parametrize(
    ("mass", "head", "tail", "expected"),
    [
        # Probabilities 0.4, 0.1, 0.3, 0.2.
        (0.0, 0, 0, 1),  # one token must remain
        (0.3, 0, 0, 1),
        (0.41, 0, 0, 2),
        (0.69, 0, 0, 2),
        (0.71, 0, 0, 3),
        (0.91, 0, 0, 4),
        (1.0, 0, 0, 4),
        # Of the inner two, 0.25 and 0.75.
        (0.0, 1, 1, 2),
        (0.74, 1, 1, 3),
        (0.76, 1, 1, 4),
        (0.5, 4, 0, 4),
        (0.5, 3, 3, 4),
    ],
)
def test_top_p_by_hand(mass, head, tail, expected):
    scores = torch.tensor([0.4, 0.1, 0.3, 0.2]).log()
    assert top_p_count(scores, mass, Protected(head, tail)) == expected


@pytest.mark.parametrize(
    ("bound", "head", "tail", "expected"),
    [(0.3, 0, 0, 2), (0.5, 0, 0, 1), (0.0, 0, 0, 4), (0.3, 1, 1, 3), (9.0, 1, 1, 2), (9.0, 3, 3, 4)],
)
def test_threshold_by_hand(bound, head, tail, expected):
    scores = torch.tensor([0.4, 0.1, 0.3, 0.2])
    assert threshold_count(scores, bound, Protected(head, tail)) == expected


@pytest.mark.parametrize(
    ("scores", "keep", "head", "tail", "expected"),
    [
        ([0.1, 0.9, 0.3, 0.8, 0.2], 3, 0, 0, [1, 2, 3]),
        ([0.1, 0.9, 0.3, 0.8, 0.2], 3, 1, 1, [0, 1, 4]),
        ([0.1, 0.9, 0.3, 0.8, 0.2], 2, 1, 1, [0, 4]),
        ([0.5, 0.5, 0.5, 0.5], 2, 0, 0, [0, 1]),  # ties go to the earlier
        ([-1.0, -3.0, -2.0], 2, 0, 0, [0, 2]),
        ([0.0, 1.0], 2, 1, 1, [0, 1]),
        ([0.3, 0.2, 0.1], 3, 0, 0, [0, 1, 2]),
    ],
)
def test_select_by_hand(scores, keep, head, tail, expected):
    assert select(torch.tensor(scores), keep, Protected(head, tail)).tolist() == expected
