"""Held-out prompts: windows and passkey prompts, the same ones for every pruning configuration."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.document import Document
from ablations.sdtp.evaluation.retrieval import Passkey, passkeys
from ablations.specs.sdtp.evaluate import PasskeyPrompts


class Heldout:
    """Held-out prompts of the series of a panel; those that several series have are made once.

    Args:
        tokenizer: Tokenizer of the model that will read the prompts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._documents: dict[Path, list[Document]] = {}
        self._windows: dict[tuple[Path, int], Sequence[Window]] = {}
        self._passkeys: dict[tuple[Path, PasskeyPrompts], Sequence[Passkey]] = {}

    def windows(self, text: Path, tokens: int, count: int) -> Sequence[Window]:
        """At least the first `count` held-out documents of `tokens` tokens or more, cut to that length.

        Args:
            text: Manifest of the text.
            tokens: Tokens of a window.
            count: How many windows are needed.

        Raises:
            UserError: the text is missing or corrupt, or too few documents are long enough.
        """
        key = text, tokens
        if len(self._windows.get(key, ())) < count:
            self._windows[key] = windows(self._read(text), self._tokenizer, "heldout", count, tokens)
        return self._windows.get(key, ())

    def passkeys(self, text: Path, prompts: PasskeyPrompts, count: int) -> Sequence[Passkey]:
        """At least the first `count` passkey prompts in held-out documents.

        Raises:
            UserError: the text is missing or corrupt, or too few documents are long enough.
        """
        key = text, prompts
        if len(self._passkeys.get(key, ())) < count:
            texts = (document.text for document in self._read(text) if document.split == "heldout")
            self._passkeys[key] = passkeys(self._tokenizer, texts, prompts, count)
        return self._passkeys.get(key, ())

    def _read(self, text: Path) -> list[Document]:
        if text not in self._documents:
            self._documents[text] = read_corpus(text)
        return self._documents[text]
