import pytest
import torch

from ablations.core.errors import UserError
from ablations.dynatree import exactness
from ablations.dynatree.decoding import Draft, decode_autoregressive, decode_speculative
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.exactness import FLOAT32_MARGIN, MAX_ROUNDING_STEPS, Exactness
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.tree import TokenTree
from ablations.lm.fused import fastest
from ablations.lm.graphs import GraphedCache
from ablations.lm.layered import LayeredLM
from tests.dynatree.noisy_models import VOCABULARY, noisy_copy, tiny_model

PROMPT = [5, 9, 1, 30, 42, 7]
LOW = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def target() -> LayeredLM:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def greedy(target) -> list[int]:
    with torch.inference_mode():
        return decode_autoregressive(target, target.new_cache(64), PROMPT, 12).tokens


def logits_after(target: LayeredLM, emitted: list[int]) -> torch.Tensor:
    ids = torch.tensor([PROMPT + emitted])
    return target.forward(ids, torch.arange(ids.shape[1])[None])[0, -1]


def second_choice(target: LayeredLM, greedy: list[int], position: int) -> tuple[int, float]:
    """The target's second most probable token at `position`, and the gap of its logit to the first's."""
    best = logits_after(target, greedy[:position]).topk(2)
    assert int(best.indices[0]) == greedy[position]
    return int(best.indices[1]), float(best.values[0] - best.values[1])


def tied(target: LayeredLM, greedy: list[int], position: int, gap: float) -> tuple[LayeredLM, list[int]]:
    """A copy of the target whose two best logits at `position` lie `gap` apart, and the second's text."""
    second, _ = second_choice(target, greedy, position)
    copy = noisy_copy(target, 0.0)
    ids = torch.tensor([PROMPT + greedy[:position]])
    state = copy.norm(copy.states(ids, torch.arange(ids.shape[1])[None]))[0, -1]
    head = copy.lm_head.weight
    # The second token's row moves along the state until its logit lies `gap` below the first token's.
    shift = head[greedy[position]] @ state - gap - head[second] @ state
    head[second] += shift * state / (state @ state)
    return copy, [*greedy[:position], second]


@torch.inference_mode()
def test_identical_tokens_have_no_departures(target, greedy):
    assert Exactness(target).departures("d", PROMPT, greedy, greedy) == ()


@torch.inference_mode()
def test_a_departure_in_float32_names_prompt_position_and_gap(target, greedy):
    second, gap = second_choice(target, greedy, 11)
    message = (
        rf"prompt HumanEval/3: new token 11 is not the target's greedy token \(its logit is {gap:.2g} from"
    )
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        Exactness(target).departures("HumanEval/3", PROMPT, [*greedy[:11], second], greedy)


@torch.inference_mode()
@pytest.mark.parametrize("length", [1, 8, 11])
def test_a_text_of_another_length_is_no_tie(target, greedy, length):
    for pair in ((greedy[:length], greedy), (greedy, greedy[:length])):
        with pytest.raises(UserError, match=r"new tokens where the target's greedy ones are"):
            Exactness(target).departures("d", PROMPT, *pair)


@torch.inference_mode()
@pytest.mark.parametrize("position", [0, 4, 11])
def test_a_tie_in_float32_is_counted_up_to_the_margin(target, greedy, position):
    near, emitted = tied(target, greedy, position, FLOAT32_MARGIN / 2)
    (departure,) = Exactness(near).departures("d", PROMPT, emitted, greedy[: position + 1])
    assert departure.position == position
    assert departure.gap == pytest.approx(FLOAT32_MARGIN / 2, rel=0.1)
    far, emitted = tied(target, greedy, position, FLOAT32_MARGIN * 2)
    with pytest.raises(UserError, match=f"new token {position} is not"):
        Exactness(far).departures("d", PROMPT, emitted, greedy[: position + 1])


@torch.inference_mode()
def test_a_reference_that_departs_is_judged_too(target, greedy):
    """The arm emits the most probable token, and the reference another one."""
    second, _ = second_choice(target, greedy, 5)
    with pytest.raises(UserError, match="new token 5 is not"):
        Exactness(target).departures("d", PROMPT, greedy[:6], [*greedy[:5], second])
    near, wrong = tied(target, greedy, 5, FLOAT32_MARGIN / 2)
    (departure,) = Exactness(near).departures("d", PROMPT, greedy[:6], wrong)
    assert (departure.position, departure.gap) == (5, pytest.approx(FLOAT32_MARGIN / 2, rel=0.1))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", LOW)
def test_the_margin_of_low_precision_is_what_rounding_does_to_gaps(dtype, monkeypatch):
    target = LayeredLM(tiny_model("llama").model.to(dtype))
    text = torch.randint(0, VOCABULARY, (200,), generator=torch.Generator().manual_seed(4)).tolist()
    assert Exactness(target).margin == 0
    measured = exactness.measured_margin(target, text)
    # By hand: one row at a time beside all rows at once.
    ids = torch.tensor([text])
    whole = target.forward(ids, torch.arange(200)[None])[0].float()
    cache = target.new_cache(200)
    single = torch.cat(
        [
            target.forward(ids[:, place : place + 1], torch.tensor([[place]]), None, cache)[0].float()
            for place in range(200)
        ]
    )
    best = whole.topk(2, dim=1).indices
    noise = (whole.gather(1, best).diff() - single.gather(1, best).diff()).abs().max()
    assert 0 < float(noise) * exactness.SAFETY_FACTOR <= measured
    assert measured <= MAX_ROUNDING_STEPS * torch.finfo(dtype).eps * float(whole.max())
    # A difference that is not rounding does not widen the margin: here the rows of a chunk ignore the text.
    monkeypatch.setattr(exactness, "cache_for", lambda *_: Forgetful(target))
    assert exactness.measured_margin(target, text) == pytest.approx(
        MAX_ROUNDING_STEPS * torch.finfo(dtype).eps * float(whole.max()), rel=1e-5
    )


class Forgetful(GraphedCache):
    """A cache whose forwards forget the text before them."""

    def __init__(self, lm: LayeredLM) -> None:
        super().__init__(lm, 208, 8)

    def takes(self, rows: int) -> bool:
        self.keys[0].zero_()
        return super().takes(rows)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_departs_at_ties_alone_and_never_fails_for_rounding(dtype):
    """On many prompts, every departure of a tree from decoding row by row is within the measured margin."""
    target, _ = fastest(LayeredLM(tiny_model("llama").model.to(dtype)))
    draft = noisy_copy(LayeredLM(tiny_model("llama").model.to(dtype)), 0.05)
    arm = Draft(
        NeuralDrafter(draft, VOCABULARY, 160, 14), TokenTree(14, target.device), FixedGrowth(3, 2, None)
    )
    exactness_check, departed_prompts = Exactness(target), 0
    prompts = torch.randint(0, VOCABULARY, (16, 20), generator=torch.Generator().manual_seed(2)).tolist()
    for prompt in prompts:
        greedy = decode_autoregressive(target, target.new_cache(160), prompt, 40).tokens
        emitted = decode_speculative(target, target.new_cache(160), arm, prompt, 40).tokens
        departures = exactness_check.departures("d", prompt, emitted, greedy)
        assert bool(departures) == (emitted != greedy)
        assert all(departure.gap <= exactness_check.margin for departure in departures)
        departed_prompts += bool(departures)
    assert (exactness_check.margin > 0) == (departed_prompts > 0)
    if dtype == torch.bfloat16:
        assert departed_prompts
    # Not everything is a tie: a token that is far from the greatest fails.
    least = int(logits_after(target, []).argmin())
    greedy = decode_autoregressive(target, target.new_cache(160), PROMPT, 3).tokens
    with pytest.raises(UserError, match="new token 0 is not"):
        exactness_check.departures("d", PROMPT, [least, *greedy[1:]], greedy)
