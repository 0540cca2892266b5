"""Windows of a corpus."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.lm.document import Document


@pytest.fixture
def tokenizer(make_model: Callable[..., Path]) -> PreTrainedTokenizerFast:
    return load_tokenizer(make_model())


def documents(*lengths: int) -> list[Document]:
    return [
        Document(id=f"d{index}", kind="file", split="heldout" if index % 2 else "train", text="é" * length)
        for index, length in enumerate(lengths)
    ]


def test_the_first_documents_that_are_long_enough(tokenizer: PreTrainedTokenizerFast) -> None:
    selected = windows(documents(9, 5, 9, 4, 9, 8, 9, 9), tokenizer, "heldout", 2, 10)
    assert [window.document for window in selected] == ["d1", "d5"]
    assert all(window.ids.shape == (10,) and window.ids.dtype == torch.int64 for window in selected)
    assert tokenizer.decode(selected[1].ids) == "é" * 5
    assert selected[0].kind == "file"


def test_whole_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    selected = windows(documents(0, 5, 0, 0, 0, 700), tokenizer, "heldout", 2, None)
    assert [window.ids.shape[0] for window in selected] == [10, 1400]


def test_documents_after_the_last_window_are_not_tokenised(tokenizer: PreTrainedTokenizerFast) -> None:
    seen = []

    def watched() -> list[Document]:
        for document in documents(9, 9, 9, 9, 9, 9):
            seen.append(document.id)
            yield document

    windows(watched(), tokenizer, "train", 2, 10)
    assert seen == ["d0", "d1", "d2"]


def test_too_few_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="'heldout': 3 documents of at least 10 tokens asked for, 2 found"):
        windows(documents(9, 5, 9, 4, 9, 8), tokenizer, "heldout", 3, 10)
    with pytest.raises(UserError, match="'validation': 1 documents asked for, 0 found"):
        windows(documents(9), tokenizer, "validation", 1, None)


def test_a_corrupt_corpus_is_named(make_text: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Some text.")
    manifest = make_text(source="local", path=str(tmp_path / "mine.txt"))
    lines = manifest.parent / "documents.jsonl"
    assert json.loads(lines.read_text())["text"] == "Some text."
    lines.write_text(lines.read_text().replace("Some", "Sane"))
    with pytest.raises(UserError, match=r"documents.jsonl: its SHA-256"):
        read_corpus(manifest)
