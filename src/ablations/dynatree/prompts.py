"""The prompts of a decoding job."""

from transformers import PreTrainedTokenizerBase

from ablations.core.errors import UserError
from ablations.core.job import JobFile
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.document import Document
from ablations.lm.layered import LayeredLM
from ablations.lm.tokenizer import user_turn
from ablations.specs.dynatree.prompts import Prompted


def read_prompts(job: JobFile[Prompted], target: LayeredLM) -> list[Window]:
    """Prompts of all prompt sets of the spec, in the order of each set's corpus.

    Raises:
        UserError: a corpus has too few documents, a chat prompt's target has no working chat template, or a
            prompt and its new tokens exceed the target's positions.
    """
    tokenizer = load_tokenizer(job.path("model"))
    positions = target.config.max_position_embeddings
    longest = positions - job.spec.new_tokens
    prompts = []
    for prompt_set in job.spec.prompts:
        documents = read_corpus(job.path(prompt_set.text))
        if prompt_set.chat:
            documents = [_as_user_turn(document, tokenizer) for document in documents]
        set_windows = windows(
            documents, tokenizer, prompt_set.split, prompt_set.count, prompt_set.tokens, prompt_set.chat
        )
        for window in set_windows:
            if len(window.ids) > longest:
                raise UserError(
                    f"prompt {window.document}: {len(window.ids)} tokens and {job.spec.new_tokens} new ones"
                    f" exceed the target's {positions} positions; shorten it to at most {longest} tokens"
                    f" (a study cuts its prompts by 'tokens' of the kind '{prompt_set.kind}')"
                )
        prompts += [Window(window.document, prompt_set.kind, window.ids) for window in set_windows]
    return prompts


def _as_user_turn(document: Document, tokenizer: PreTrainedTokenizerBase) -> Document:
    """A document as a user's turn in the chat template, up to the beginning of the answer."""
    if not tokenizer.chat_template:
        raise UserError(
            "dynatree.prompts: the target has no chat template; set 'chat' of its prompts to false"
        )
    return document.model_copy(update={"text": user_turn(tokenizer, document.text)})
