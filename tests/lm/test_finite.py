import pytest
import torch

from ablations.core.errors import UserError
from ablations.lm.finite import NOT_FINITE, finite_logits, greedy_ids, require_finite

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_ids_are_those_of_an_argmax(dtype):
    # Few values, so that many rows have equal greatest ones.
    logits = torch.randint(-3, 4, (2, 50, 301), generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(greedy_ids(logits), logits.argmax(dim=-1))
    wide = torch.tensor([[torch.finfo(dtype).min, torch.finfo(dtype).max]], dtype=dtype)
    assert greedy_ids(wide).tolist() == [1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 7, 299])
def test_a_logit_that_is_not_finite_leaves_no_token_in_its_row_alone(dtype, value, place):
    logits = torch.randn(3, 300, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = logits.argmax(dim=-1)
    logits[1, place] = value
    expected[1] = NOT_FINITE
    assert torch.equal(greedy_ids(logits), expected)


def test_whether_logits_are_finite_is_not_asked_of_the_device():
    """On the meta device reading a value raises."""
    assert greedy_ids(torch.empty(1, 2, 9, device="meta")).shape == (1, 2)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float16, "compute.dtype: NaN or infinity in x, computed in float16; use bfloat16 or float32"),
        (torch.bfloat16, "compute.dtype: NaN or infinity in x, computed in bfloat16; use float32"),
        (
            torch.float32,
            "compute.dtype: NaN or infinity in x, computed in float32; the checkpoint is damaged",
        ),
    ],
)
def test_the_error_names_data_type_and_way_out(dtype, message):
    require_finite(True, "x", dtype)
    with pytest.raises(UserError) as error:
        require_finite(False, "x", dtype)
    assert str(error.value).startswith(message)


def test_logits_of_all_forwards_in_a_block_are_watched():
    head = torch.nn.Linear(2, 3, bias=False)
    good, bad = torch.ones(1, 2), torch.tensor([[1.0, torch.nan]])
    with finite_logits([head], "x", torch.float32):
        head(good)
    head(bad)
    with pytest.raises(UserError, match="NaN or infinity in x"), finite_logits([head], "x", torch.float32):
        for rows in (good, bad, good):
            head(rows)
    with finite_logits([head], "x", torch.float32):
        pass
