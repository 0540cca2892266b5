"""The prompts of a decoding job."""

from transformers import PreTrainedTokenizerBase

from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import Window, read_corpus, windows
from ablations.lm.document import Document
from ablations.lm.layered import LayeredLM
from ablations.lm.tokenizer import user_turn
from ablations.study.contracts.dynatree import Prompted
from ablations.study.errors import UserError
from ablations.study.job import JobFile


def read_prompts(job: JobFile[Prompted], target: LayeredLM) -> list[Window]:
    """Prompts of all sets of the spec, each set's in its corpus' order.

    Raises:
        UserError: too few documents, chat prompts for a target without a working chat template, or a prompt
            that with its new tokens exceeds the target's positions.
    """
    tokenizer = load_tokenizer(job.path("model"))
    positions = target.config.max_position_embeddings
    longest = positions - job.spec.new_tokens
    prompts = []
    for chosen in job.spec.prompts:
        documents = read_corpus(job.path(chosen.text))
        if chosen.chat:
            documents = [_as_turn(document, tokenizer) for document in documents]
        found = windows(documents, tokenizer, chosen.split, chosen.count, chosen.tokens, chosen.chat)
        for window in found:
            if len(window.ids) > longest:
                raise UserError(
                    f"prompt {window.document}: {len(window.ids)} tokens and {job.spec.new_tokens} new ones"
                    f" exceed the target's {positions} positions; shorten it to at most {longest} tokens"
                    f" (a study cuts its prompts by 'tokens' of the kind '{chosen.kind}')"
                )
        prompts += [Window(window.document, chosen.kind, window.ids) for window in found]
    return prompts


def _as_turn(document: Document, tokenizer: PreTrainedTokenizerBase) -> Document:
    """A document as a user's turn in the chat template, up to where the answer begins."""
    if not tokenizer.chat_template:
        raise UserError(
            "dynatree.prompts: the target has no chat template; set 'chat' of its prompts to false"
        )
    return document.model_copy(update={"text": user_turn(tokenizer, document.text)})
