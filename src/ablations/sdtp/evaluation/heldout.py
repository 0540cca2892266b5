"""Held-out prompts: windows and retrieval prompts, the same ones for every pruning configuration."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.document import Document
from ablations.sdtp.retrieval.prompts import ConfigKeys, RetrievalPrompt, retrieval_prompts
from ablations.specs.sdtp.retrieval import RetrievalPrompts

TOKENS_KEY = "sdtp.evaluation.retrieval.tokens"
_KEYS = ConfigKeys(count="sdtp.evaluation.retrieval.count", tokens=TOKENS_KEY)


class Heldout:
    """Held-out prompts of the series of a panel; those that several series have are made once.

    Args:
        tokenizer: Tokenizer of the model that will read the prompts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._documents: dict[Path, list[Document]] = {}
        self._windows: dict[tuple[Path, int], Sequence[Window]] = {}
        self._retrieval: dict[tuple[Path, RetrievalPrompts], Sequence[RetrievalPrompt]] = {}

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

    def retrieval(self, text: Path, prompts: RetrievalPrompts, count: int) -> Sequence[RetrievalPrompt]:
        """At least the first `count` retrieval prompts in held-out documents.

        Args:
            text: Manifest of the text.
            prompts: Which prompts.
            count: How many are needed.

        Raises:
            UserError: the text is missing or corrupt, too few documents are long enough, or prompts leave no
                text around a fact.
        """
        key = text, prompts
        if len(self._retrieval.get(key, ())) < count:
            self._retrieval[key] = retrieval_prompts(
                self._tokenizer, self._read(text), "heldout", prompts, count, _KEYS
            )
        return self._retrieval.get(key, ())

    def _read(self, text: Path) -> list[Document]:
        if text not in self._documents:
            self._documents[text] = read_corpus(text)
        return self._documents[text]
