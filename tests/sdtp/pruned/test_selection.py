import pytest
import torch

from ablations.sdtp.pruned.selection import (
    require_layers,
    select,
    threshold_count,
    top_p_count,
)
from ablations.study.contracts.sdtp import Preserve, Protected, stage_counts
from ablations.study.errors import UserError


@pytest.mark.parametrize(
    ("tokens", "ratios", "head", "tail", "expected"),
    [
        (10, (0.7, 0.7), 0, 0, (7, 5)),  # ceil(4.9)
        (10, (0.7, 0.7, 0.7), 4, 2, (7, 6, 6)),  # never below head + tail
        (100, (0.55,), 0, 0, (55,)),  # in binary 0.55 * 100 is above 55
        (30, (0.1,), 0, 0, (3,)),  # in binary 0.1 * 30 is above 3
        (5, (1.0, 0.01), 0, 0, (5, 1)),
        (1024, (0.7,) * 10, 4, 16, (717, 502, 352, 247, 173, 122, 86, 61, 43, 31)),
    ],
)
def test_stage_counts(tokens, ratios, head, tail, expected):
    assert stage_counts(tokens, ratios, head + tail) == expected


def test_stage_counts_of_a_prompt_that_is_protected_whole():
    assert stage_counts(3, (0.5, 0.1), 4) == (3, 3)


@pytest.mark.parametrize(
    ("head", "tail", "tokens", "expected"),
    [
        (4, 16, 1024, (4, 16)),
        (4, 0.1, 4096, (4, 410)),  # ceil(409.6)
        (4, 0.1, 448, (4, 45)),
        (4, 0.1, 300, (4, 30)),  # in binary 0.1 * 300 is above 30
        (0.25, 0.5, 10, (3, 5)),
        (0, 0.001, 5, (0, 1)),
        (1, 0, 1, (1, 0)),
    ],
)
def test_a_share_is_protected_of_each_prompt(head, tail, tokens, expected):
    preserve = Preserve(head=head, tail=tail)
    assert preserve.of(tokens) == expected
    assert Preserve.model_validate_json(preserve.model_dump_json()).of(tokens) == expected


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


@pytest.mark.parametrize(("layers", "word"), [((1, 6), "layer 6"), ((3, 1), "ascending"), ((2, 2), "once")])
def test_layers_that_cannot_be(layers, word):
    with pytest.raises(UserError, match=rf"schedule\.layers.*{word}"):
        require_layers(layers, 6)
