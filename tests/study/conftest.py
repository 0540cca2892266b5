"""What the tests of plans share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """A folder to make plans in, which sees the repository's texts and drafts."""
    for name in ("texts", "drafts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fetched(working_folder):
    """Files that shipped studies read and that are not shipped; a plan knows no more of them than a hash."""
    questions = Path("data/spec_bench/question.jsonl")
    questions.parent.mkdir(parents=True)
    questions.write_text("{}\n")
