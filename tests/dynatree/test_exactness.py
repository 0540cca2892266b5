import pytest
import torch

from ablations.dynatree.decoding import decode_autoregressive
from ablations.dynatree.exactness import count_ties
from ablations.lm.layered import LayeredLM
from ablations.study.errors import UserError
from tests.dynatree.noisy_models import tiny_model

PROMPT = [5, 9, 1, 30, 42, 7]


@pytest.fixture(scope="module")
def target() -> LayeredLM:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def greedy(target) -> list[int]:
    with torch.inference_mode():
        return decode_autoregressive(target, target.new_cache(64), PROMPT, 12).tokens


def second_choice(target: LayeredLM, greedy: list[int], position: int) -> tuple[int, float]:
    """The target's second token at `position`, and how far its logit lies below the first's."""
    ids = torch.tensor([PROMPT + greedy[:position]])
    best = target.forward(ids, torch.arange(ids.shape[1])[None])[0, -1].topk(2)
    assert int(best.indices[0]) == greedy[position]
    return int(best.indices[1]), float(best.values[0] - best.values[1])


@torch.inference_mode()
def test_identical_tokens_have_no_ties(target, greedy):
    assert count_ties(target, "d", PROMPT, greedy, greedy, 0.0) == 0


@torch.inference_mode()
def test_float32_allows_no_departure_and_names_prompt_and_position(target, greedy):
    other, _ = second_choice(target, greedy, 11)
    with pytest.raises(UserError, match="prompt HumanEval/3: new token 11 is not the target's greedy token"):
        count_ties(target, "HumanEval/3", PROMPT, [*greedy[:11], other], greedy, 0.0)
    with pytest.raises(UserError, match="new token 8 is not"):
        count_ties(target, "d", PROMPT, greedy[:8], greedy, 0.0)


@torch.inference_mode()
def test_a_departure_within_the_margin_is_a_tie_and_beyond_it_an_error(target, greedy):
    other, gap = second_choice(target, greedy, 11)
    emitted = [*greedy[:11], other]
    assert count_ties(target, "d", PROMPT, emitted, greedy, gap * 1.01) == 1
    with pytest.raises(UserError, match="new token 11"):
        count_ties(target, "d", PROMPT, emitted, greedy, gap * 0.99)
