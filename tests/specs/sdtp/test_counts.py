import pytest

from ablations.core.errors import UserError
from ablations.specs.sdtp.counts import Preserve, require_layers, stage_counts


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


def test_a_layer_that_the_model_lacks():
    require_layers((1, 5), 6)
    with pytest.raises(UserError, match=r"schedule\.layers: layer 6 does not exist"):
        require_layers((1, 6), 6)
