"""Which prompts a decoding job takes, and how far it decodes them."""

from typing import Self

from pydantic import PositiveInt, model_validator

from ablations.core.contract import Contract
from ablations.specs.lm import Split


class PromptSource(Contract):
    """Which documents of a text can be prompts, in the order of the text, and how they are cut."""

    text: str
    """Name of the text."""
    split: Split = "heldout"
    """Split the prompts are taken from."""
    tokens: PositiveInt | None = None
    """Cut each document to its first so many tokens; null takes it whole."""
    chat: bool = False
    """Put each document, as a user's turn, into the target's chat template."""

    @model_validator(mode="after")
    def _chat_is_whole(self) -> Self:
        if self.chat and self.tokens is not None:
            raise ValueError("a turn of a chat is taken whole: set tokens to null, or chat to false")
        return self


class PromptSelection(PromptSource):
    """How many documents of a text are prompts, and how they are cut."""

    count: PositiveInt
    """How many prompts."""


class PromptKind(PromptSource):
    """Decoding prompts of one kind, however many."""

    kind: str
    """Name of the kind, as tables call it."""


class PromptSet(PromptSelection):
    """Decoding prompts of one kind."""

    kind: str
    """Name of the kind, as tables call it."""


class Continued(Contract):
    """How far prompts are decoded."""

    new_tokens: PositiveInt
    """Most tokens generated per prompt; end of sequence stops earlier."""


class PromptSets(Contract):
    """What every job that reads prompts is told."""

    prompts: tuple[PromptSet, ...]
    """Which prompts."""


class Prompted(PromptSets, Continued):
    """What every job that decodes prompts is told."""
