"""The prompts of a decoding job."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ablations.core.errors import UserError
from ablations.core.job import JobFile
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.document import Document
from ablations.lm.layered import LayeredLM
from ablations.lm.tokenizer import user_turn
from ablations.specs.dynatree.prompts import PromptKind, PromptSet


def read_prompts(job: JobFile[Any], target: LayeredLM, new_tokens: int) -> list[Window]:
    """Prompts of all prompt sets of the spec, in the order of each set's corpus.

    Args:
        job: A job that is told its prompts (`specs.dynatree.prompts.PromptSets`).
        target: The target.
        new_tokens: Most tokens generated per prompt.

    Raises:
        UserError: as `first_prompts`.
    """
    spec, model = job.spec, job.path("model")
    return [
        window
        for chosen in spec.prompts
        for window in first_prompts(chosen, chosen.count, job.path(chosen.text), model, target, new_tokens)
    ]


def first_prompts(
    kind: PromptKind | PromptSet, count: int, text: Path, model: Path, target: LayeredLM, new_tokens: int
) -> list[Window]:
    """The first prompts of a kind, in the order of its corpus: prompt k is the same whatever the count.

    Args:
        kind: Which documents are prompts, and how they are cut.
        count: How many prompts.
        text: Manifest of the corpus.
        model: Manifest of the target, whose tokenizer reads them.
        target: The target.
        new_tokens: Most tokens generated per prompt.

    Raises:
        UserError: the corpus has too few documents, a chat prompt's target has no working chat template, or a
            prompt and its new tokens exceed the target's positions.
    """
    tokenizer = load_tokenizer(model)
    documents = read_corpus(text)
    if kind.chat:
        documents = [_as_user_turn(document, tokenizer) for document in documents]
    positions = target.config.max_position_embeddings
    longest = positions - new_tokens
    prompts = []
    for window in windows(documents, tokenizer, kind.split, count, kind.tokens, kind.chat):
        if len(window.ids) > longest:
            raise UserError(
                f"prompt {window.document}: {len(window.ids)} tokens and {new_tokens} new ones"
                f" exceed the target's {positions} positions; shorten it to at most {longest} tokens"
                f" (a study cuts its prompts by 'tokens' of the kind '{kind.kind}')"
            )
        prompts.append(Window(window.document, kind.kind, window.ids))
    return prompts


def _as_user_turn(document: Document, tokenizer: PreTrainedTokenizerBase) -> Document:
    """A document as a user's turn in the chat template, up to the beginning of the answer."""
    if not tokenizer.chat_template:
        raise UserError(
            "dynatree.prompts: the target has no chat template; set 'chat' of its prompts to false"
        )
    return document.model_copy(update={"text": user_turn(tokenizer, document.text)})
