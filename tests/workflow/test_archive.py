"""The paper elsewhere, from one file; a file that was edited is refused."""

import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.paper.archive import unpack
from tests.workflow.conftest import ARCHIVE

PAPER = Path(__file__).parents[2] / "paper"


def archive(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ablations.paper.archive", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def packed(finished) -> Path:
    return finished.path / ARCHIVE


def packed_as(out: Path, files: dict[str, bytes], promised: dict[str, bytes]) -> Path:
    """An archive of files, whose list of hashes is that of the promised ones."""
    contents = {"files": {name: sha256(content).hexdigest() for name, content in promised.items()}}
    with tarfile.open(out, "w:gz") as tar:
        for name, content in {"archive.json": json.dumps(contents).encode(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out


def edited(packed: Path, out: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive whose files were edited, and whose list of hashes was made to fit."""
    with tarfile.open(packed) as tar:
        files = {item.name: tar.extractfile(item).read() for item in tar}
    del files["archive.json"]
    edit(files)
    return packed_as(out, files, files)


def test_the_paper_from_an_archive_is_the_paper(finished, packed, tmp_path):
    done = archive("build", packed, "--paper", PAPER, "--out", tmp_path / "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = [path for path in (tmp_path / "new/paper").rglob("*") if path.is_file()]
    assert len(made) > 30
    for path in made:
        assert path.read_bytes() == (finished.path / path.relative_to(tmp_path / "new")).read_bytes(), path


def test_packing_again_gives_the_same_bytes(finished, packed, tmp_path):
    assert archive("pack", "--out", tmp_path / "again.tar.gz", cwd=finished.path).returncode == 0
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()


def _spec(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.startswith("results/record/") and name.endswith(".json"))
    record = json.loads(files[name])
    record["spec"]["seed"] = 99
    record["spec"]["new_tokens"] = 99
    files[name] = json.dumps(record).encode()


def _renamed(files: dict[str, bytes]) -> None:
    names = [name for name in files if name.startswith("results/record/") and name.endswith(".json")]
    files[names[0]], files[names[1]] = files[names[1]], files[names[0]]


def _pins(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.startswith("results/record/") and name.endswith(".json"))
    record = json.loads(files[name])
    record["digests"]["pins"]["torch"] = "0.0.1"
    files[name] = json.dumps(record).encode()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_spec, "its spec is not the one of its digest"),
        (_renamed, "its digests do not give its name"),
        (_pins, "its digests do not give its name"),
    ],
)
def test_records_that_do_not_fit_their_digests_are_refused(packed, tmp_path, edit, said):
    path = edited(packed, tmp_path / "edited.tar.gz", edit)
    done = archive("build", path, "--paper", PAPER, "--out", tmp_path / "new", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: results/record/")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_file_that_was_edited_after_packing_is_refused(packed, tmp_path):
    content = gzip.decompress(packed.read_bytes())
    place = content.index(b'"nll": ') + len(b'"nll": ')
    flipped = b"9" if content[place : place + 1] != b"9" else b"8"
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content[:place] + flipped + content[place + 1 :]))
    done = archive("build", tmp_path / "a.tar.gz", "--paper", PAPER, "--out", tmp_path / "new", cwd=tmp_path)
    assert done.returncode == 1
    assert "is not the file that was packed (its SHA-256 differs)" in done.stderr


@pytest.mark.parametrize("absolute", [False, True])
def test_nothing_is_written_outside_the_folder(tmp_path, absolute):
    target = tmp_path / "outside"
    name = str(target) if absolute else "../outside"
    files = {"results/a": b"a", name: b"b"}
    path = packed_as(tmp_path / "a.tar.gz", files, files)
    with pytest.raises(UserError, match=f"{re.escape(name)} points out of the archive"):
        unpack(path, tmp_path / "new")
    assert not target.exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("files", "promised"), [({"a": b"", "b": b""}, {"a": b""}), ({"a": b""}, {"a": b"", "b": b""})]
)
def test_a_file_too_many_or_too_few_is_named(tmp_path, files, promised):
    path = packed_as(tmp_path / "a.tar.gz", files, promised)
    with pytest.raises(UserError, match=r": b is in the archive or in archive\.json, not in both"):
        unpack(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    path = packed_as(tmp_path / "a.tar.gz", {"a": b"new"}, {"a": b"new"})
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    with pytest.raises(UserError, match="not empty; name a new folder with --out"):
        unpack(path, folder)
    assert (folder / "a").read_bytes() == b"old"


@pytest.mark.parametrize(
    "content", [b"", b"nothing", gzip.compress(b"nothing")], ids=["empty", "not gzip", "not tar"]
)
def test_what_is_no_archive_is_one_line(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    done = archive("build", tmp_path / "a.tar.gz", "--paper", PAPER, "--out", tmp_path / "new", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: a" not in done.stderr
    assert "not an archive of a study" in done.stderr
    assert done.stderr.count("\n") == 1
