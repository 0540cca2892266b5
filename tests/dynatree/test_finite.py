"""A model that overflows or has NaN in its weights ends a decoding job with an error."""

import pytest
import torch

from ablations.core.errors import UserError
from ablations.dynatree import calibrate_target
from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.decoding import Draft, decode_autoregressive, decode_speculative
from ablations.dynatree.distil_teacher import Teacher
from ablations.dynatree.drafters.interface import TimedDrafter
from ablations.dynatree.drafters.neural import NeuralDrafter
from ablations.dynatree.generate import decode_with_transformers
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.replay import replay
from ablations.dynatree.traces import Trace, greedy_traces
from ablations.dynatree.tree import TokenTree
from ablations.lm.corpus import Window
from ablations.lm.fused import fastest
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from tests.dynatree.noisy_models import SIZES, VOCABULARY, noisy_copy, tiny_model
from tests.dynatree.states import states_of_text

PROMPT = [5, 9, 1, 30, 42, 7]
ROOM = 128
NEW_TOKENS = 16


def overflowing(architecture: str = "llama") -> LayeredLM:
    """A model in float16 whose activations exceed 65504; in float32 it is finite."""
    lm = tiny_model(architecture)
    for name, weight in lm.model.named_parameters():
        if "down_proj" in name or "dense_4h_to_h" in name:
            weight *= 3e6
    return LayeredLM(lm.model.to(torch.float16))


def poisoned_at(target: LayeredLM, token: int, value: float = torch.nan) -> LayeredLM:
    """A copy whose states are NaN from the first `token` on."""
    bad = noisy_copy(target, 0.0)
    bad.embedding.weight[token] = value
    return bad


def draft_of(model: LayeredLM, branching: int = 2) -> Draft:
    return Draft(
        NeuralDrafter(model, VOCABULARY, ROOM, 14),
        TokenTree(14, model.device),
        FixedGrowth(3, branching, None),
    )


def greedy(target: LayeredLM) -> list[int]:
    return decode_autoregressive(target, target.new_cache(ROOM), PROMPT, NEW_TOKENS).tokens


def ways(target: LayeredLM, draft: LayeredLM) -> dict:
    return {
        "autoregressive": lambda: decode_autoregressive(target, target.new_cache(ROOM), PROMPT, NEW_TOKENS),
        "speculative": lambda: decode_speculative(
            target, target.new_cache(ROOM), draft_of(draft), PROMPT, NEW_TOKENS
        ),
        "generate": lambda: decode_with_transformers(target, PROMPT, NEW_TOKENS),
        "lookup": lambda: decode_with_transformers(
            target, PROMPT, NEW_TOKENS, options={"prompt_lookup_num_tokens": 4}
        ),
        "assisted": lambda: decode_with_transformers(target, PROMPT, NEW_TOKENS, assistant=draft.model),
    }


WAYS = list(ways(None, None))


@torch.inference_mode()
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("architecture", sorted(SIZES))
def test_a_target_that_overflows_is_an_error_that_names_the_data_type(architecture, way):
    target = overflowing(architecture)
    draft = LayeredLM(tiny_model(architecture).model.to(torch.float16))
    with pytest.raises(UserError, match="computed in float16; use bfloat16 or float32"):
        ways(target, draft)[way]()


@torch.inference_mode()
@pytest.mark.parametrize("form", [lambda lm: lm, lambda lm: fastest(lm)[0]])
@pytest.mark.parametrize("way", WAYS)
def test_nan_in_the_middle_of_a_text_is_an_error(way, form):
    target = tiny_model("llama")
    said = greedy(target)
    token = said[5]
    place = said.index(token) + 1
    # In a tree's forward NaN of a drafted token spreads to other rows, since zero times NaN is NaN.
    named = {"autoregressive": f"of new token {place}", "speculative": r"of new token \d+"}.get(
        way, "of generate"
    )
    bad = form(poisoned_at(target, token))
    with pytest.raises(UserError, match=f"NaN or infinity in .*logits {named}, computed in float32; the ch"):
        ways(bad, target)[way]()


@torch.inference_mode()
@pytest.mark.parametrize("branching", [1, 2])
def test_a_draft_without_finite_logits_is_an_error_and_no_slow_arm(branching):
    target = tiny_model("llama")
    bad = poisoned_at(target, greedy(target)[3])
    with pytest.raises(UserError, match="NaN or infinity in the draft's probabilities"):
        decode_speculative(target, target.new_cache(ROOM), draft_of(bad, branching), PROMPT, NEW_TOKENS)


@torch.inference_mode()
def test_a_replay_needs_finite_states_and_finite_drafts():
    target = tiny_model("llama")
    said = greedy(target)
    with pytest.raises(UserError, match="the target's last states"):
        states_of_text(poisoned_at(target, said[3]), PROMPT, said)
    draft = draft_of(poisoned_at(target, said[3]))
    trace = Trace(Window("d", "k", torch.tensor(PROMPT)), said, states_of_text(target, PROMPT, said))
    with pytest.raises(UserError, match="the draft's probabilities"):
        list(replay(draft, trace, len(said)))
    with pytest.raises(UserError, match="the target's logits of new token"):
        list(greedy_traces(poisoned_at(target, said[3]), [trace.window], len(said)))


@torch.inference_mode()
def test_costs_are_not_measured_on_nan():
    ids = torch.tensor(PROMPT)
    target = poisoned_at(tiny_model("llama"), PROMPT[2])
    with pytest.raises(UserError, match="the target's logits of 1 rows"):
        calibrate_target.Clock(target, ids, (len(ids),), 4).verify([1, 2, 4], (len(ids),), 1)


@torch.inference_mode()
@pytest.mark.parametrize("questions", [False, True])
def test_a_teacher_without_finite_logits_writes_nothing(questions):
    target = tiny_model("llama")
    target.lm_head.weight[7] = torch.inf
    spec = TeacherSpec(texts=2, questions=0, prompt_tokens=6, new_tokens=70, compute={"dtype": "float32"})
    teacher = Teacher(target, spec)
    with pytest.raises(UserError, match="NaN or infinity in the target's logits"):
        if questions:
            teacher.answer_questions(torch.tensor([3, 4]), torch.tensor([5, 6]), 2)
        else:
            teacher.continue_texts(torch.tensor([PROMPT, PROMPT]))


class MetaDrafter:
    """A drafter with proposals on the meta device, where reading a value raises."""

    forwards = 0

    def propose(self, tree: object, level: slice, branching: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (level.stop - level.start, branching)
        return torch.empty(shape, dtype=torch.int64, device="meta"), torch.empty(shape, device="meta")


def test_a_drafts_probabilities_are_read_when_the_rounds_are_over():
    drafter = TimedDrafter(MetaDrafter(), PhaseClock(torch.device("cpu")))
    for end in (1, 3):
        drafter.propose(None, slice(0, end), 2)
    with pytest.raises((RuntimeError, NotImplementedError)):
        drafter.require_finite(torch.float32)
