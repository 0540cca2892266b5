"""The commit in a record is that of the checkout whose code ran, or none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDED = """
import json
from pathlib import Path
from ablations.core.contract import Contract
from ablations.core.job import JobFile, Run
from ablations.core.record import environment_of

job = JobFile[Contract](digest="d", module="m", spec={}, spec_digest="s", code_digest="c")
environment = environment_of(Run(job, Path("out"), None), "cpu", "cpu", 1, "float32")
print(json.dumps([environment.git_commit, environment.git_dirty]))
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder: Path) -> str:
    """Make a repository of a folder; its commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all of it")
    return git(folder, "rev-parse", "HEAD")


def recorded(checkout: Path, folder: Path, **variables: str) -> list:
    """Commit and state that a job of a checkout records when it runs in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), **variables}
    command = [sys.executable, "-B", "-c", RECORDED]
    return json.loads(
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True).stdout
    )


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """This project's code without its repository, in a folder of another repository."""
    other = tmp_path / "other"
    for part in ("core", "__init__.py"):
        target = other / "unpacked/src/ablations" / part
        copy = shutil.copytree if (ROOT / "src/ablations" / part).is_dir() else shutil.copy
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / "src/ablations" / part, target)
    committed(other)
    return other / "unpacked"


def test_a_repository_around_the_code_is_not_its_checkout(unpacked):
    assert recorded(unpacked, unpacked) == [None, None]
    assert recorded(unpacked, unpacked.parent) == [None, None]


def test_a_checkout_has_its_own_commit_wherever_it_is_run(unpacked, tmp_path):
    commit = committed(unpacked)
    other = unpacked.parent
    assert recorded(unpacked, unpacked) == [commit, False]
    (tmp_path / "elsewhere").mkdir()
    assert recorded(unpacked, tmp_path / "elsewhere") == [commit, False]
    # Variables of a hook of the other repository, or of a shell that works on it.
    inherited = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": "nowhere"}
    assert recorded(unpacked, unpacked, **inherited) == [commit, False]
    git(unpacked, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    assert recorded(tmp_path / "tree", tmp_path, **inherited) == [commit, False]
    (unpacked / "src/ablations/__init__.py").write_text("edited = True\n")
    assert recorded(unpacked, unpacked, **inherited) == [commit, True]


def test_an_inherited_repository_is_not_that_of_an_archive(unpacked, tmp_path):
    shutil.copytree(unpacked, tmp_path / "alone")
    assert recorded(tmp_path / "alone", tmp_path / "alone", GIT_DIR=str(unpacked.parent / ".git")) == [
        None,
        None,
    ]
