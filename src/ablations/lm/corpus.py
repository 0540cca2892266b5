"""Prepared texts: documents, and their first tokens as prompts or windows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ablations.lm.document import DOCUMENTS, Document
from ablations.study.artefact import open_artefact
from ablations.study.contracts.lm import Split
from ablations.study.errors import UserError


@dataclass(frozen=True)
class Window:
    """First tokens of one document.

    Attributes:
        document: Identifier of the document.
        kind: Kind of the document.
        ids: ``[tokens]`` int64, on the CPU; the first are what the tokenizer puts before a text (BOS), if
            anything.
    """

    document: str
    kind: str
    ids: Tensor


def read_corpus(manifest: Path) -> list[Document]:
    """Read the corpus that `ablations.lm.prepare_text` made, in its stable order.

    Raises:
        UserError: a file is missing or corrupt.
    """
    folder, _ = open_artefact(manifest)
    document = TypeAdapter(Document)
    # Not splitlines: a text may hold other line separators than \n, which JSON leaves as they are.
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
        documents: A corpus in its stable order; only as much of it is tokenised as is needed.
        tokenizer: Tokenizer of the model that will read the windows, as `load_tokenizer` returns it.
        split: Split to take documents from.
        count: How many windows.
        tokens: Length of every window, BOS counted; None takes each document whole.
        templated: A chat template wrote the documents, with BOS where it belongs.

    Raises:
        UserError: the split has too few documents of that length.
    """
    found: list[Window] = []
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
        found.append(Window(document.id, document.kind, torch.tensor(ids, dtype=torch.int64)))
        if len(found) == count:
            return found
    length = "" if tokens is None else f" of at least {tokens} tokens"
    raise UserError(
        f"split '{split}': {count} documents{length} asked for, {len(found)} found;"
        " lower 'documents' or the token budget, or use a larger text"
    )
