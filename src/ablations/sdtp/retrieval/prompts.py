"""Retrieval prompts: a fact is hidden in a text, and the end of the prompt asks for it."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.document import Document
from ablations.lm.tokenizer import prefix_ids, without_leading_space
from ablations.sdtp.retrieval.wordings import WORDINGS
from ablations.specs.lm import Split
from ablations.specs.sdtp.retrieval import RetrievalKind, RetrievalPrompts

DISTANCE = 16
"""Tokens at the end of a prompt in which no fact stands: as many as a default study protects."""
VALUES = range(10_000, 100_000)
"""Numbers that facts state."""


@dataclass(frozen=True)
class RetrievalPrompt:
    """One retrieval prompt and its answer.

    Attributes:
        document: Identifier of the document in which the fact is hidden.
        kind: Kind of the prompt.
        depth: Wanted share of the text before the fact.
        prompt: ``[tokens]`` int64, on the CPU; it ends with the cue.
        answer: ``[tokens]`` int64, on the CPU; the value as the tokenizer writes it after the cue.
    """

    document: str
    kind: RetrievalKind
    depth: float
    prompt: Tensor
    answer: Tensor

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt.shape[0] + self.answer.shape[0]


@dataclass(frozen=True)
class ConfigKeys:
    """Configuration keys of prompts, for errors.

    Attributes:
        count: Of their number.
        tokens: Of their length.
    """

    count: str
    tokens: str


def retrieval_prompts(
    tokenizer: PreTrainedTokenizerFast,
    documents: Iterable[Document],
    split: Split,
    spec: RetrievalPrompts,
    count: int,
    keys: ConfigKeys,
) -> list[RetrievalPrompt]:
    """Retrieval prompts of exactly `spec.tokens` tokens, BOS included; the first are the same for any count.

    Each has a document, a wording and a fact of its own. Documents are taken from the end of the split;
    windows of text are taken from its beginning. A fact is inserted at the line end nearest to its depth, so
    that it has lines to itself, at least `DISTANCE` tokens before the end of the prompt.

    Args:
        tokenizer: Tokenizer of the model that will read the prompts.
        documents: A corpus in its stable order.
        split: Split of the documents and of the wordings.
        spec: Length, kinds and depths of the prompts.
        count: How many prompts.
        keys: Configuration keys, for errors.

    Raises:
        UserError: too few documents are long enough, or the length leaves no text around a fact.
    """
    writer = _Writer(tokenizer, split, spec, keys.tokens)
    result: list[RetrievalPrompt] = []
    for document in reversed([document for document in documents if document.split == split]):
        if len(result) == count:
            break
        prompt = writer.write(len(result), document)
        if prompt is not None:
            result.append(prompt)
    if len(result) < count:
        raise UserError(
            f"{keys.count}: {count} documents of split '{split}' that fill prompts of {spec.tokens} tokens"
            f" asked for, {len(result)} found; lower {keys.count} or {keys.tokens}, or use a larger text"
        )
    return result


class _Question(NamedTuple):
    """The parts of a prompt beside its text, and the answer: opening, lines of facts, cue and value."""

    opening: str
    fact: str
    cue: str
    value: str


class _Writer:
    """Writes the prompts of one split.

    Args:
        tokenizer: Tokenizer.
        split: Split.
        spec: Length, kinds and depths of the prompts.
        tokens_key: Configuration key of the length, for errors.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, split: Split, spec: RetrievalPrompts, tokens_key: str
    ) -> None:
        self._tokenizer = tokenizer
        self._inner = without_leading_space(tokenizer)
        self._split = split
        self._spec = spec
        self._tokens_key = tokens_key

    def write(self, number: int, document: Document) -> RetrievalPrompt | None:
        """Prompt `number` in a document; None where the document does not fill it.

        Raises:
            UserError: the prompt has no room for a text.
        """
        spec = self._spec
        kind = spec.kinds[number % len(spec.kinds)]
        depth = spec.depths[number // len(spec.kinds) % len(spec.depths)]
        question = _draw(kind, self._split, number)
        first, text_tokenizer = prefix_ids(self._tokenizer), self._tokenizer
        if question.opening:
            first, text_tokenizer = first + _ids(self._tokenizer, question.opening), self._inner
        fact = _ids(self._inner, question.fact)
        cue, answer = self._cue(question)
        room = spec.tokens - len(first) - len(fact) - len(cue)
        last_place = room - max(0, DISTANCE - len(cue))
        if last_place < 1:
            raise UserError(
                f"{self._tokens_key}: {spec.tokens} tokens leave no text beside fact and question"
                f" ({spec.tokens - room} tokens); raise it"
            )
        ids = _ids(text_tokenizer, document.text, room)
        if len(ids) < room:
            return None
        place = self._line_end(ids, depth, last_place)
        prompt = first + ids[:place] + fact + ids[place:] + cue
        return RetrievalPrompt(document.id, kind, depth, torch.tensor(prompt), torch.tensor(answer))

    def _cue(self, question: _Question) -> tuple[list[int], list[int]]:
        """Ids of the cue and of the value after it, from the tokenisation of their joint text."""
        encoded = self._inner(
            question.cue + question.value, add_special_tokens=False, return_offsets_mapping=True
        )
        parts: tuple[list[int], list[int]] = ([], [])
        for token, (_, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            parts[end > len(question.cue)].append(token)
        return parts

    def _line_end(self, ids: list[int], depth: float, last: int) -> int:
        """Tokens up to the line end nearest to `depth`, at most `last`; up to `depth` if no line ends."""
        target = min(round(depth * len(ids)), last)
        tokens = enumerate(ids[:last], 1)
        ends = [place for place, token in tokens if self._tokenizer.decode([token]).endswith("\n")]
        return min(ends, key=lambda place: abs(place - target), default=target)


def _draw(kind: RetrievalKind, split: Split, number: int) -> _Question:
    """A wording and facts, which depend on the split and the number of the prompt."""
    wordings = WORDINGS[kind][split]
    draw = random.Random(f"{split} {number}")
    wording = draw.choice(wordings.forms)
    keys = draw.sample(wordings.keys, wordings.facts)
    values = [str(value) for value in draw.sample(VALUES, wordings.facts)]
    lines = [wording.fact.format(key=key, value=value) for key, value in zip(keys, values, strict=True)]
    asked = draw.randrange(wordings.facts)
    return _Question(
        opening=wording.opening.format(key=keys[asked]),
        fact=wording.heading + "".join(lines),
        cue=wording.cue.format(key=keys[asked]),
        value=values[asked],
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None = None) -> list[int]:
    return tokenizer(
        text, add_special_tokens=False, truncation=limit is not None, max_length=limit, verbose=False
    ).input_ids
