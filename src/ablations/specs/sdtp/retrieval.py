"""Retrieval prompts: a fact hidden in a text and asked for at a distance, on which distant tokens matter."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ablations.core.contract import Contract, Distinct, Proportion

RetrievalKind = Literal["passkey", "pairs", "question_first", "definition"]
"""`passkey`: a number in a sentence, asked for at the end; `pairs`: one of several keys with values each;
`question_first`: the question stands at the beginning; `definition`: a name defined in code, used far
below."""

KINDS: tuple[RetrievalKind, ...] = ("passkey", "pairs", "question_first", "definition")


class PromptKinds(Contract):
    """Kinds of retrieval prompts, which take turns, and with them depths; wordings differ between splits."""

    kinds: Annotated[tuple[RetrievalKind, ...], Field(min_length=1), Distinct] = KINDS
    """Kinds of prompts."""
    depths: Annotated[tuple[Proportion, ...], Field(min_length=1), Distinct] = (0.1, 0.3, 0.5, 0.7)
    """Where the fact is hidden, as shares of the text before the question."""


class RetrievalPrompts(PromptKinds):
    """Which retrieval prompts."""

    tokens: PositiveInt
    """Tokens of a prompt, the question included."""


class Retrieval(RetrievalPrompts):
    """Retrieval prompts of an evaluation."""

    count: PositiveInt
    """Prompts in all, each with a text, a wording and a fact of its own."""


class TrainingPrompts(PromptKinds):
    """Retrieval prompts among training windows, as long as the prompts of the others."""

    count: PositiveInt
    """Windows with a retrieval prompt, beside `documents` windows of text."""


class RetrievalProbe(Contract):
    """One retrieval prompt under one pruning configuration."""

    document: str
    """Identifier of the document in which the fact is hidden."""
    kind: RetrievalKind
    """Kind of the prompt."""
    depth: Proportion
    """Where the fact was hidden."""
    hit: bool
    """Whether greedy decoding says the whole answer."""
    nll: NonNegativeFloat
    """Mean NLL of the answer's tokens, nats per token."""
    reference_hit: bool
    """The same for the unpruned model: the ceiling."""
    reference_nll: NonNegativeFloat
    """The same for the unpruned model."""
