import pytest
import torch
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.tokenizer import apply_study_settings
from ablations.sdtp.evaluation.retrieval import QUESTION, passkeys, probe
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import PasskeyPrompts
from tests.lm.llama_like import BOS, llama_like
from tests.sdtp.naive import naive_greedy, naive_logits
from tests.sdtp.random_models import VOCABULARY

TEXTS = ["".join(f"line {line} of text {text}\n" for line in range(40)) for text in range(9)]
SPEC = PasskeyPrompts(tokens=400, depths=(0.0, 0.5, 1.0))


@pytest.fixture(scope="module")
def tokenizer(workspace):
    return load_tokenizer(workspace.folder / "model" / "manifest.json")


def test_prompts_by_their_text(tokenizer):
    keys = passkeys(tokenizer, ["too short\n", *TEXTS], SPEC, 6)
    assert [key.depth for key in keys] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
    numbers = set()
    for key, text in zip(keys, TEXTS, strict=False):
        assert key.prompt.shape == (400,)
        prompt = tokenizer.decode(key.prompt)
        number = tokenizer.decode(key.answer).strip()
        assert number.isdigit()
        assert len(number) == 5
        numbers.add(number)
        sentence = f"The pass key is {number}. Remember it. {number} is the pass key.\n"
        before, after = prompt.removesuffix(QUESTION).split(sentence)
        assert prompt.endswith(QUESTION)
        assert text.startswith(before + after)
        assert not before or before.endswith("\n"), "the sentence stands on a line of its own"
        assert len(before) / len(before + after) == pytest.approx(key.depth, abs=0.07)
    assert len(numbers) == 6


@pytest.mark.parametrize("count", [4, 6, 9])
def test_the_first_prompts_are_the_same_for_any_count(tokenizer, count):
    few, more = passkeys(tokenizer, TEXTS, SPEC, 4), passkeys(tokenizer, TEXTS, SPEC, count)
    assert len(more) == count
    for first, second in zip(few, more, strict=False):
        assert first.depth == second.depth
        assert torch.equal(first.prompt, second.prompt)
        assert torch.equal(first.answer, second.answer)


def test_a_text_without_lines_takes_the_sentence_at_its_depth(tokenizer):
    [key] = passkeys(tokenizer, ["x" * 999], PasskeyPrompts(tokens=400, depths=(0.5,)), 1)
    before, _, after = tokenizer.decode(key.prompt).removesuffix(QUESTION).partition("The pass key is ")
    assert len(before) == after.count("x")


def test_a_prompt_begins_with_bos_and_its_parts_with_no_space():
    """By the convention of a tokenizer like Llama's, whose every text begins with both."""
    tokenizer = apply_study_settings(llama_like())
    (key,) = passkeys(tokenizer, TEXTS[:1], SPEC.model_copy(update={"depths": (0.5,)}), 1)
    assert key.prompt.shape == (SPEC.tokens,)
    prompt = tokenizer.convert_ids_to_tokens(key.prompt.tolist())
    assert prompt[:2] == [BOS, "▁"]
    assert prompt.count(BOS) == 1
    text = "".join(prompt[2:]).replace("▁", " ")
    assert text.startswith("line 0 of text 0\nline 1")
    assert "\nThe pass key is" in text
    assert text.endswith(QUESTION)


@pytest.mark.parametrize(
    ("change", "count", "message"),
    [({"tokens": 60}, 6, r"retrieval\.tokens: 60"), ({}, 12, r"retrieval\.keys: 12 .* 9 found")],
)
def test_what_cannot_be_built_is_one_line(tokenizer, change, count, message):
    with pytest.raises(UserError, match=message) as caught:
        passkeys(tokenizer, TEXTS, SPEC.model_copy(update=change), count)
    assert "\n" not in str(caught.value)


def test_probe_says_what_greedy_decoding_says(lm, ids):
    """Five greedy tokens by the plain forward of `transformers`, and one of them changed."""
    said = ids
    for _ in range(5):
        logits = lm.model(said[None], use_cache=False).logits[0, -1]
        said = torch.cat([said, logits.argmax()[None]])
    right = said[60:]
    logits = lm.model(said[None], use_cache=False).logits[0, 59:-1].float()
    cache = lm.new_cache(65)
    hit, nll = probe(lm, prefill(lm, ids, cache), cache, right)
    assert hit is True
    assert nll == pytest.approx(F.cross_entropy(logits, right).item(), rel=1e-4)
    wrong = right.clone()
    wrong[3] = (wrong[3] + 1) % VOCABULARY
    cache.truncate(0)
    hit, worse = probe(lm, prefill(lm, ids, cache), cache, wrong)
    assert hit is False
    assert worse > nll


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_probe_after_a_pruned_prompt_says_what_float64_says(lm, ids, positions):
    def norm(stage, states, indices=None):
        return states.norm(dim=-1)

    where = ([1, 3], (0.5, 0.5), 2, 5, positions)
    answer, gap = naive_greedy(lm, norm, ids, 5, *where)
    assert gap > 1e-3, "a tie in this test; change the seed of the ids"
    answer = torch.tensor(answer)
    logits, _ = naive_logits(lm, norm, ids, answer, *where)
    cache = lm.new_cache(65)
    pruning = Pruning((1, 3), (0.5, 0.5), Preserve(head=2, tail=5), positions)
    hit, nll = probe(lm, prefill(lm, ids, cache, pruning, norm), cache, answer)
    assert hit is True
    assert nll == pytest.approx(F.cross_entropy(logits[:-1], answer).item(), abs=1e-4)
