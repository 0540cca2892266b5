"""Prepared texts: documents, and their first tokens as prompts or windows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.document import DOCUMENTS, Document
from ablations.specs.lm import Split


@dataclass(frozen=True)
class Window:
    """First tokens of one document.

    Attributes:
        document: Identifier of the document.
        kind: Kind of the document.
        ids: ``[tokens]`` int64, on the CPU; they begin with the ids that the tokenizer puts before a text
            (BOS), if it puts any.
    """

    document: str
    kind: str
    ids: Tensor


def read_corpus(manifest: Path) -> list[Document]:
    """Read a corpus written by `ablations.lm.prepare_text`, in its stable order.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    document = TypeAdapter(Document)
    # Not splitlines: JSON leaves line separators other than \n as they are, so a record may contain them.
    lines = (folder / DOCUMENTS).read_bytes().rstrip(b"\n").split(b"\n")
    return [document.validate_json(line) for line in lines]


def windows(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    count: int,
    tokens: int | None,
    templated: bool = False,
) -> list[Window]:
    """The first `count` documents of `split` with at least `tokens` tokens, cut to that length.

    Args:
        documents: A corpus in its stable order; documents after the last window are not tokenised.
        tokenizer: Tokenizer of the model that will read the windows, as `load_tokenizer` returns it.
        split: Split to take documents from.
        count: How many windows.
        tokens: Length of every window, BOS counted; None takes each document whole.
        templated: Whether a chat template wrote the documents, and so BOS where it belongs.

    Raises:
        UserError: the split has too few documents of that length.
    """
    result: list[Window] = []
    for document in documents:
        if document.split != split:
            continue
        ids = tokenizer(
            document.text,
            add_special_tokens=not templated,
            truncation=tokens is not None,
            max_length=tokens,
            verbose=False,
        ).input_ids
        if len(ids) < (tokens or 1):
            continue
        result.append(Window(document.id, document.kind, torch.tensor(ids, dtype=torch.int64)))
        if len(result) == count:
            return result
    length = "" if tokens is None else f" of at least {tokens} tokens"
    raise UserError(
        f"split '{split}': {count} documents{length} asked for, {len(result)} found;"
        " lower 'documents' or the token budget, or use a larger text"
    )
