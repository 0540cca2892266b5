"""Artefacts and files appear whole or not at all."""

import pytest

from ablations.core.artefact import new_artefact, open_artefact
from ablations.core.errors import UserError
from ablations.core.files import atomic_path, write_text_if_changed
from ablations.core.job import JobFile, Run
from ablations.specs.sdtp.train import Losses


def run(out):
    job = JobFile[Losses](digest="d", module="m", spec=Losses(), spec_digest="s", code_digest="c")
    return Run(job, out, None)


def make(out, content="hello"):
    facts = {}
    with new_artefact(run(out), facts) as folder:
        (folder / "inner").mkdir()
        (folder / "inner/data.txt").write_text(content)
        facts["length"] = len(content)


def test_round_trip_and_replacement(tmp_path):
    out = tmp_path / "kind/d/manifest.json"
    make(out)
    make(out, "other")
    folder, manifest = open_artefact(out)
    assert (folder / "inner/data.txt").read_text() == "other"
    assert manifest.facts == {"length": 5}
    assert sorted(path.name for path in out.parent.parent.iterdir()) == ["d"]


def test_a_changed_file_is_refused_by_name(tmp_path):
    out = tmp_path / "kind/d/manifest.json"
    make(out)
    (out.parent / "inner/data.txt").write_text("hellO")
    with pytest.raises(UserError, match=r"inner/data\.txt: its SHA-256 is not the one"):
        open_artefact(out)
    (out.parent / "inner/data.txt").unlink()
    with pytest.raises(UserError, match=r"inner/data\.txt: missing"):
        open_artefact(out)


def test_a_failing_block_leaves_the_old_artefact(tmp_path):
    out = tmp_path / "kind/d/manifest.json"
    make(out)
    with pytest.raises(RuntimeError), new_artefact(run(out), {}) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert (open_artefact(out)[0] / "inner/data.txt").read_text() == "hello"
    assert sorted(path.name for path in out.parent.parent.iterdir()) == ["d"]


def test_a_damaged_manifest_is_refused_by_name(tmp_path):
    out = tmp_path / "kind/d/manifest.json"
    make(out)
    out.write_text(out.read_text()[:40])
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        open_artefact(out)


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unchanged_text_is_not_rewritten(tmp_path):
    path = tmp_path / "file"
    assert write_text_if_changed(path, "a")
    before = path.stat().st_mtime_ns
    assert not write_text_if_changed(path, "a")
    assert path.stat().st_mtime_ns == before
    assert write_text_if_changed(path, "b")
