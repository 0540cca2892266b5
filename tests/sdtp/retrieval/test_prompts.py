import re
from itertools import product

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.document import Document
from ablations.lm.tokenizer import apply_study_settings, prefix_ids
from ablations.sdtp.retrieval.prompts import ConfigKeys, retrieval_prompts
from ablations.specs.sdtp.retrieval import KINDS, RetrievalPrompts
from tests.lm.llama_like import BOS, llama_like

SPLITS = ("train", "validation", "heldout")
KEYS = ConfigKeys(count="some.count", tokens="some.tokens")
NUMBER = re.compile(r"\d{5}")


def document(split, number):
    # At most two digits in a row, fewer than those of a fact.
    text = "".join(f"line {line} of {split} {number}\n" for line in range(99))
    return Document(id=f"{split}:{number}", kind="record", split=split, text=text)


DOCUMENTS = [document(split, number) for number, split in product(range(12), SPLITS)]
TEXTS = {document.id: document.text for document in DOCUMENTS}


def byte_pairs():
    """A tokenizer whose tokens join bytes, also digits and the space before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    numbers = [
        f"The number is {number}.\n\nAnd the key of it is {number}" for number in range(10**4, 10**5, 9)
    ]
    tokenizer.train_from_iterator([*numbers, *TEXTS.values()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module", params=["bytes", "characters and BOS", "byte pairs"])
def tokenizer(request, workspace):
    if request.param == "bytes":
        return load_tokenizer(workspace.folder / "model" / "manifest.json")
    return apply_study_settings(llama_like() if request.param == "characters and BOS" else byte_pairs())


def prompts_of(tokenizer, count, split="heldout", documents=DOCUMENTS, tokens=400, **spec):
    return retrieval_prompts(
        tokenizer, documents, split, RetrievalPrompts(tokens=tokens, **spec), count, KEYS
    )


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_stands_in_the_prompt_but_not_in_its_last_16_tokens(tokenizer, kind, split, depth):
    for prompt in prompts_of(tokenizer, 12, split, kinds=(kind,), depths=(depth,)):
        assert prompt.prompt.shape == (400,)
        before, end, answer = (
            tokenizer.decode(ids) for ids in (prompt.prompt[:-16], prompt.prompt[-16:], prompt.answer)
        )
        assert NUMBER.fullmatch(answer.strip())
        assert answer.strip() in before
        assert len(set(NUMBER.findall(before))) == (3 if kind == "pairs" else 1)
        assert not re.search(r"\d{3}", end)


def test_the_answer_is_what_the_tokenizer_writes_after_the_cue(tokenizer):
    start = len(prefix_ids(tokenizer))
    for prompt in prompts_of(tokenizer, 12):
        cue = tokenizer.decode(prompt.prompt).rpartition("\n\n")[2]
        joint = tokenizer("\n\n" + cue + tokenizer.decode(prompt.answer)).input_ids[start:]
        assert joint[-len(prompt.answer) :] == prompt.answer.tolist()
        assert prompt.length == 400 + len(prompt.answer)


@pytest.mark.parametrize("split", SPLITS)
def test_the_text_around_the_fact_is_the_documents(tokenizer, split):
    """In whole lines; the share of the depth stands before the fact."""
    for prompt in prompts_of(tokenizer, 12, split, depths=(0.2, 0.5, 0.8)):
        text = TEXTS[prompt.document].splitlines()
        lines = tokenizer.decode(prompt.prompt[len(prefix_ids(tokenizer)) :]).splitlines()
        own = [line.strip() for line in lines if line.strip() in text]
        assert own == text[: len(own)]
        fact = next(place for place, line in enumerate(lines) if NUMBER.search(line))
        before = sum(line.strip() in text for line in lines[:fact])
        assert before / len(own) == pytest.approx(prompt.depth, abs=0.1)


def test_kinds_take_turns_and_with_them_depths(tokenizer):
    prompts = prompts_of(tokenizer, 7, kinds=("pairs", "definition"), depths=(0.2, 0.4, 0.6))
    assert [prompt.kind for prompt in prompts] == ["pairs", "definition"] * 3 + ["pairs"]
    assert [prompt.depth for prompt in prompts] == [0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.2]


@pytest.mark.parametrize("count", [4, 6, 12])
def test_the_first_prompts_are_the_same_for_any_count(tokenizer, count):
    few, more = prompts_of(tokenizer, 4), prompts_of(tokenizer, count)
    assert len(more) == count
    for first, second in zip(few, more, strict=False):
        assert (first.document, first.kind, first.depth) == (second.document, second.kind, second.depth)
        assert torch.equal(first.prompt, second.prompt)
        assert torch.equal(first.answer, second.answer)


def test_documents_come_from_the_end_of_the_split_and_facts_differ(tokenizer):
    short = Document(id="short", kind="record", split="heldout", text="too short\n")
    answers = set()
    for split in SPLITS:
        prompts = prompts_of(tokenizer, 5, split, [*DOCUMENTS, short])
        assert [prompt.document for prompt in prompts] == [f"{split}:{number}" for number in range(11, 6, -1)]
        answers |= {tokenizer.decode(prompt.answer).strip() for prompt in prompts}
    assert len(answers) == 15


def test_a_text_without_lines_takes_the_fact_at_its_depth(tokenizer):
    lines = Document(id="d", kind="record", split="heldout", text="xy" * 999)
    [prompt] = prompts_of(tokenizer, 1, documents=[lines], kinds=("definition",), depths=(0.25,))
    before, _, after = tokenizer.decode(prompt.prompt).partition(tokenizer.decode(prompt.answer).strip())
    assert before.count("xy") / (before + after).count("xy") == pytest.approx(0.25, abs=0.01)


def test_a_prompt_begins_with_bos_and_its_parts_with_no_space():
    """By the convention of a tokenizer like Llama's, whose every text begins with both."""
    tokenizer = apply_study_settings(llama_like())
    for prompt in prompts_of(tokenizer, 12):
        tokens = tokenizer.convert_ids_to_tokens(prompt.prompt.tolist())
        assert tokens[:2] == [BOS, "▁"]
        assert tokens.count(BOS) == 1
        assert tokens[2] != "▁"
        assert "\n▁" not in "".join(tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 60}, r"some\.tokens: 60 tokens leave no text beside fact and question \(\d+ tokens\)"),
        ({"count": 13}, r"some\.count: 13 documents of split 'heldout' .* 12 found; lower some\.count"),
        ({"tokens": 9000}, r"fill prompts of 9000 tokens asked for, 0 found"),
    ],
)
def test_what_cannot_be_built_is_one_line(workspace, change, message):
    tokenizer = load_tokenizer(workspace.folder / "model" / "manifest.json")
    with pytest.raises(UserError, match=message) as caught:
        prompts_of(tokenizer, **{"count": 6} | change)
    assert "\n" not in str(caught.value)
