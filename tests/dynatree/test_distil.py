"""A draft distilled from a target: as a network, in training, and as a drafter."""

import pytest
import torch
from torch import Tensor

from ablations.core.errors import UserError
from ablations.dynatree.decoding import Draft, decode_autoregressive, decode_speculative
from ablations.dynatree.distilling.fused import FusedDraft
from ablations.dynatree.distilling.model import DistilledDraft, frequent_tokens, joined_inputs
from ablations.dynatree.distilling.sequences import TeacherSequences
from ablations.dynatree.distilling.states import normalised
from ablations.dynatree.distilling.training import RIDGE, DraftTrainer
from ablations.dynatree.distilling.unroll import unrolled_mask
from ablations.dynatree.drafters.distilled import DistilledDrafter
from ablations.dynatree.drafters.hybrid import HybridDrafter
from ablations.dynatree.drafters.ngram import NgramDrafter
from ablations.dynatree.drafters.ngram_counts import NgramCounts
from ablations.dynatree.fit_ngram import count_ngrams
from ablations.dynatree.growth.fixed import FixedGrowth
from ablations.dynatree.replay import replay
from ablations.dynatree.traces import Trace
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import tree_mask
from ablations.lm.cache import StaticCache
from ablations.lm.corpus import Window
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.specs.dynatree.distil import DistilSpec
from tests.dynatree.noisy_models import VOCABULARY, noisy_copy, tiny_model
from tests.dynatree.states import states_of_text

ROOM = 160
LENGTH = 40
SPEC = DistilSpec(
    vocabulary=64, unroll=3, epochs=40, batch=8, learning_rate=1e-2, compute={"dtype": "float32"}
)
CPU = torch.device("cpu")


def generated(target: LayeredLM, count: int, seed: int = 5) -> TeacherSequences:
    """Greedy continuations of random prompts of 8 tokens, as the teacher leaves them."""
    starts = torch.randint(0, VOCABULARY, (count, 8), generator=torch.Generator().manual_seed(seed)).tolist()
    ids, states = [], []
    for start in starts:
        tokens = decode_autoregressive(target, target.new_cache(ROOM), start, LENGTH - 8).tokens
        ids.append(torch.tensor(start + tokens))
        states.append(normalised(target.norm, states_of_text(target, start, tokens)).bfloat16())
    positions = torch.arange(LENGTH).expand(count, -1)
    return TeacherSequences(torch.stack(ids), torch.stack(states), positions >= 5, positions >= 8)


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def distilled(request) -> tuple[LayeredLM, DistilledDraft]:
    """A target, and a draft that overfits some of its text: a random model's text cannot be predicted."""
    target = tiny_model(request.param)
    with torch.no_grad():
        sequences = generated(target, 16)
    trainer = DraftTrainer(target, SPEC, sequences.ids.flatten().bincount(minlength=VOCABULARY))
    trainer.fit_join(sequences)
    trainer.train(sequences)
    return target, trainer.draft.requires_grad_(False)


def drafter_of(target: LayeredLM, draft: DistilledDraft, nodes: int) -> DistilledDrafter:
    return DistilledDrafter(draft, target, ROOM, nodes)


def ngram_of(target: LayeredLM) -> NgramDrafter:
    counts = count_ngrams(generated(target, 8, seed=9).ids.tolist(), 3, VOCABULARY)
    return NgramDrafter(NgramCounts(counts, VOCABULARY), 8.0, CPU)


@torch.inference_mode()
@pytest.mark.parametrize(
    "growth", [FixedGrowth(4, 1, None), FixedGrowth(4, 3, None), FixedGrowth(6, 2, 0.02)]
)
@pytest.mark.parametrize("hybrid", [False, True])
def test_speculative_tokens_are_the_greedy_ones(distilled, growth, hybrid):
    target, draft = distilled
    drafter = drafter_of(target, draft, 40)
    if hybrid:
        drafter = HybridDrafter(drafter, ngram_of(target), 0.5, sure=0.6)
    arm = Draft(drafter, TokenTree(40, CPU), growth)
    accepted = 0
    for ids in generated(target, 4).ids.tolist():
        for limit in (1, 2, 3, 24):
            prompt = ids[:9]
            expected = decode_autoregressive(target, target.new_cache(ROOM), prompt, limit).tokens
            generation = decode_speculative(target, target.new_cache(ROOM), arm, prompt, limit)
            assert generation.tokens == expected
            accepted += sum(generation.accepted)
            states = states_of_text(target, prompt, expected)
            trace = Trace(Window("d", "k", torch.tensor(prompt)), expected, states)
            rounds = replay(arm, trace, limit)
            assert [replayed.accepted for replayed in rounds] == generation.accepted
            # The draft does not run on a root below which no node could be emitted.
            assert generation.draft_forwards <= len(generation.accepted) * growth.max_depth
    # Exactness with a draft that is never accepted would be trivial.
    assert accepted > 40


@torch.inference_mode()
def test_drafting_is_what_training_unrolls(distilled):
    """Down a path, round after round, the drafter's distributions are those the trainer saw."""
    target, draft = distilled
    ids = generated(target, 1, seed=13).ids
    states = states_of_text(target, ids[0, :1].tolist(), ids[0, 1:].tolist())
    trainer = DraftTrainer(target, SPEC, torch.ones(VOCABULARY))
    trainer.draft = draft
    # A teacher's states are rounded to bfloat16; these are not.
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    sequences = TeacherSequences(ids, normalised(target.norm, states)[None], everywhere, everywhere)
    unrolled = [draft.head(step_states[0]).softmax(dim=-1) for step_states in trainer._unroll(sequences)]
    ids = ids[0]
    drafter = drafter_of(target, draft, 3)
    tree = TokenTree(3, CPU)
    drafter.prefill(ids[:10].tolist(), states[:10])
    position = 10
    for accepted in (0, 2, 1, 3, 0, 1):
        tree.plant(int(ids[position]))
        level = slice(0, 1)
        for step in range(3):
            tokens, probabilities = drafter.propose(tree, level, 64)
            # Row i stands for token i + 1.
            expected = unrolled[step][position + step - 1]
            torch.testing.assert_close(
                torch.zeros(VOCABULARY).scatter_(0, tokens[0], probabilities[0].float()),
                torch.zeros(VOCABULARY).scatter_(0, draft.tokens, expected),
                atol=2e-5,
                rtol=1e-3,
            )
            token = ids[position + step + 1][None]
            level = tree.add_level(token, torch.tensor([level.start]), torch.ones(1))
        drafter.commit(tree, torch.arange(accepted + 1), states[position : position + accepted + 1])
        position += accepted + 1


def test_rows_see_the_text_and_the_drafted_rows_on_their_way():
    mask = unrolled_mask(4, 2, CPU)[0, 0].int().tolist()
    assert mask[3] == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert mask[2] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert unrolled_mask(3, 0, CPU)[0, 0].tolist() == torch.ones(3, 3).tril().bool().tolist()


@torch.inference_mode()
def test_the_head_is_that_of_the_target(target):
    """On the target's states the draft's head gives the target's logits of the draft's tokens."""
    tokens = torch.tensor([3, 17, 40, 96])
    with torch.no_grad():
        for parameter in target.norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    draft = DistilledDraft.for_target(target, tokens)
    ids = torch.arange(9)[None]
    states = last_states(target, ids, ids)
    torch.testing.assert_close(
        draft.head(normalised(target.norm, states)), target.head(states)[..., tokens], atol=1e-4, rtol=1e-4
    )


def test_the_join_is_the_ridge_regression_of_the_next_state():
    target = tiny_model("llama")
    with torch.no_grad():
        sequences = generated(target, 6)
    trainer = DraftTrainer(target, SPEC, torch.ones(VOCABULARY))
    trainer.fit_join(sequences)
    rows = joined_inputs(sequences.states[:, :-1].float(), target.embed(sequences.ids[:, 1:-1])).flatten(0, 1)
    wanted = sequences.states[:, 1:].float().flatten(0, 1)
    # The normal equations: no other matrix has a smaller penalised error.
    error = rows @ trainer.draft.join.weight.T - wanted
    gradient = rows.T @ error + RIDGE * trainer.draft.join.weight.T
    assert gradient.abs().max() < 1e-2 * (rows.T @ wanted).abs().max()


def test_training_raises_agreement_and_repeats_itself():
    target = tiny_model("llama")
    with torch.no_grad():
        sequences = generated(target, 16)
    drafts = []
    for _ in range(2):
        trainer = DraftTrainer(target, SPEC, sequences.ids.flatten().bincount(minlength=VOCABULARY))
        trainer.fit_join(sequences)
        before = trainer.agreement(sequences)
        trainer.train(sequences)
        after = trainer.agreement(sequences)
        assert before[0] > 2 / VOCABULARY
        assert all(trained > 2 * fitted for trained, fitted in zip(after, before, strict=True))
        assert max(after) <= trainer.known_share(sequences) <= 1
        drafts.append(trainer.draft.state_dict())
    assert all(torch.equal(drafts[0][name], drafts[1][name]) for name in drafts[0])


def test_a_loss_that_is_no_number_ends_the_training():
    target = tiny_model("llama")
    with torch.no_grad():
        sequences = generated(target, 8)
    sequences.states[5, 20] = float("nan")
    trainer = DraftTrainer(target, SPEC, torch.ones(VOCABULARY))
    with pytest.raises(UserError, match="the loss is nan after"):
        trainer.train(sequences)


@torch.inference_mode()
def test_a_draft_is_read_as_it_was_written(distilled, tmp_path):
    target, draft = distilled
    path = tmp_path / "draft.safetensors"
    draft.save(path)
    read = DistilledDraft.load(path, target)
    assert torch.equal(read.tokens, draft.tokens)
    rows = (torch.randn(1, 5, 32), torch.randn(1, 5, 32), torch.arange(5)[None], None)
    # Weights are kept in bfloat16.
    torch.testing.assert_close(plain(read, *rows), plain(draft, *rows), atol=0.05, rtol=0.05)


def plain(draft: DistilledDraft, *rows: Tensor | None) -> Tensor:
    """The draft's states of rows after an empty cache."""
    config = draft.config
    return draft(*rows, StaticCache(1, config.num_key_value_heads, config.head_dim, 9, torch.float32, CPU))


@torch.inference_mode()
def test_the_fused_draft_is_the_same_function(distilled):
    target, draft = distilled
    states, embedded = torch.randn(2, 1, 8, 32)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    # The last two rows are siblings.
    causal[7, 6] = False
    mask, positions = tree_mask(causal, 0, torch.float32), torch.tensor([0, 1, 2, 3, 4, 5, 6, 6])
    expected = plain(draft, states, embedded, positions[None], mask)[0]
    packed = noisy_copy(target, 0.0)
    pack_linears(packed)
    for head, tolerance in ((target.lm_head, 1e-4), (packed.lm_head, 0.1)):
        fused = FusedDraft(draft, head, 9)
        cache = fused.new_cache()
        fused(states[0, :5], embedded[0, :5], positions[:5], None, cache)
        lower = mask[:, :, 5:].to(fused.dtype)
        actual = fused(states[0, 5:], embedded[0, 5:], positions[5:], lower, cache)
        torch.testing.assert_close(actual.float(), expected[5:], atol=tolerance, rtol=tolerance)
    # In half the size if the processor multiplies bfloat16.
    assert (fused.dtype == torch.bfloat16) == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_a_draft_of_another_target_is_refused(distilled, tmp_path):
    target, draft = distilled
    path = tmp_path / "draft.safetensors"
    draft.save(path)
    small_target = tiny_model("llama", vocabulary=30)
    with pytest.raises(UserError, match="does not fit the target"):
        DistilledDraft.load(path, small_target)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a distilled draft"):
        DistilledDraft.load(path, target)


def test_the_most_frequent_tokens_ascend_and_ties_go_to_the_smaller():
    counts = torch.tensor([0, 5, 0, 9, 5, 1])
    assert frequent_tokens(counts, 3).tolist() == [1, 3, 4]
    assert frequent_tokens(counts, 5).tolist() == [0, 1, 3, 4, 5]


class Fixed:
    """A drafter that always proposes the same tokens."""

    def __init__(self, tokens: list[int], probabilities: list[float]) -> None:
        self.forwards = 0
        self._proposals = torch.tensor(tokens), torch.tensor(probabilities, dtype=torch.float64)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        tokens, probabilities = self._proposals
        rows = level.stop - level.start
        return tokens[:branching].expand(rows, -1), probabilities[:branching].expand(rows, -1)


def test_a_hybrid_adds_the_probabilities_of_tokens_that_both_propose():
    first = Fixed([7, 3, 5, 1], [0.5, 0.3, 0.1, 0.0])
    second = Fixed([3, 9, 7, 2], [0.8, 0.1, 0.06, 0.0])
    tree = TokenTree(4, CPU)
    tree.plant(0)
    tokens, probabilities = HybridDrafter(first, second, 0.25, sure=0.81).propose(tree, slice(0, 1), 3)
    assert tokens.tolist() == [[3, 7, 9]]
    expected = torch.tensor([[0.25 * 0.3 + 0.75 * 0.8, 0.25 * 0.5 + 0.75 * 0.06, 0.75 * 0.1]]).double()
    torch.testing.assert_close(probabilities, expected)


def test_a_hybrid_leaves_a_round_to_the_cheap_drafter_where_that_is_sure():
    first = Fixed([7, 3, 5, 1], [0.5, 0.3, 0.1, 0.0])
    second = Fixed([3, 9, 7, 2], [0.8, 0.1, 0.06, 0.0])
    tree = TokenTree(4, CPU)
    tree.plant(0)
    hybrid = HybridDrafter(first, second, 0.25, sure=0.8)
    tokens, probabilities = hybrid.propose(tree, slice(0, 1), 2)
    assert tokens.tolist() == [[3, 9]]
    assert probabilities.tolist() == [[0.8, 0.1]]


@torch.inference_mode()
def test_a_distilled_drafter_supports_rounds_that_were_drafted_without_it(distilled):
    target, draft = distilled
    ids = generated(target, 1).ids[0]
    states = states_of_text(target, ids[:1].tolist(), ids[1:].tolist())
    drafter, fresh = drafter_of(target, draft, 3), drafter_of(target, draft, 3)
    tree = TokenTree(3, CPU)
    drafter.prefill(ids[:10].tolist(), states[:10])
    position = 10
    for accepted in (1, 0, 2):
        tree.plant(int(ids[position]))
        for step in range(accepted):
            tree.add_level(ids[position + step + 1][None], torch.tensor([tree.size - 1]), torch.ones(1))
        drafter.commit(tree, torch.arange(accepted + 1), states[position : position + accepted + 1])
        position += accepted + 1
    tree.plant(int(ids[position]))
    fresh.prefill(ids[:position].tolist(), states[:position])
    actual, expected = (one_drafter.propose(tree, slice(0, 1), 64)[1] for one_drafter in (drafter, fresh))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-3)


def test_frequencies_of_a_draft_in_half_precision_are_not_rounded(target, tmp_path):
    draft = DistilledDraft.for_target(target, torch.arange(64))
    draft.save(tmp_path / "draft.safetensors")
    target.model.bfloat16()
    loaded = DistilledDraft.load(tmp_path / "draft.safetensors", target)
    assert loaded.join.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.rotary.inv_freq, draft.rotary.inv_freq)
