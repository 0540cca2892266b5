"""Corpora from every source, and the properties that all of them have."""

import gzip
import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.lm.corpus import read_corpus
from ablations.lm.document import Document
from ablations.lm.prepare_text import prepare_text
from ablations.specs.lm import DatasetText, PrepareTextSpec
from ablations.specs.userfiles import content_hash, require_source_unchanged, source_hashes
from tests.lm.conftest import run_of

ROOT = Path(__file__).parents[2]

MakeText = Callable[..., Path]


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def by_id(manifest: Path) -> dict[str, Document]:
    return {document.id: document for document in read_corpus(manifest)}


def test_a_text_file(make_text: MakeText, tmp_path: Path) -> None:
    text = "One.\n\nTwo, naïve.\u2028Still two.\n\n\n    Three.\r\n"
    (tmp_path / "mine.text").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (document,) = read_corpus(make_text(source="local", path=str(tmp_path / "mine.text")))
    assert (document.id, document.kind) == ("mine.text", "file")
    assert document.text == text.replace("\r\n", "\n")


def test_a_long_text_file_becomes_several_documents(make_text: MakeText, tmp_path: Path) -> None:
    lines = [f"line {number} of the file\n" for number in range(100)]
    (tmp_path / "long.txt").write_text("".join(lines))
    documents = by_id(make_text(source="local", path=str(tmp_path / "long.txt"), window=300))
    pieces = [documents[f"long.txt:{number}"].text for number in range(1, len(documents) + 1)]
    assert "".join(pieces) == "".join(lines)
    assert len(pieces) > 5
    assert all(len(piece) <= 300 and piece.endswith("\n") for piece in pieces)


def test_a_line_longer_than_the_window_is_cut(make_text: MakeText, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("x" * 25 + "y" * 10)
    documents = by_id(make_text(source="local", path=str(tmp_path / "one.txt"), window=25))
    assert {name: document.text for name, document in documents.items()} == {
        "one.txt:1": "x" * 25,
        "one.txt:2": "y" * 10,
    }


def test_a_folder(make_text: MakeText, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("First.")
    (folder / "sub" / "b.py").write_text("second = 2")
    (folder / "picture.png").write_bytes(b"\xff\xfe")
    (folder / "blank.txt").write_text("\n \n")
    write_jsonl(folder / "c.jsonl", [{"text": "Third."}, {"text": "Fourth."}])
    manifest = make_text(source="local", path=str(folder))
    documents = by_id(manifest)
    assert {name: (document.kind, document.text) for name, document in documents.items()} == {
        "a.md": ("file", "First."),
        "sub/b.py": ("file", "second = 2"),
        "c.jsonl:1": ("record", "Third."),
        "c.jsonl:2": ("record", "Fourth."),
    }
    facts = open_artefact(manifest)[1].facts
    assert facts["blank_documents"] == 1
    assert facts["files_not_read"] == {".png": 1}


def test_records_are_chosen_by_their_fields_and_read_within_them(make_text, tmp_path):
    """Questions of several kinds in one file, the first turn of each a text."""
    records = [
        {"category": "qa", "turns": ["Who?", "When?"]},
        {"category": "rag", "turns": ["Where?"]},
        {"category": "math", "turns": {"0": "How many?"}},
        {"category": "code", "turns": []},
    ]
    path = write_jsonl(tmp_path / "questions.jsonl", records)

    def read(**where):
        source = {"source": "local", "path": str(path), "text": "turns.0", "where": where}
        return {name: document.text for name, document in by_id(make_text(**source)).items()}

    assert read(category=["qa", "math"]) == {
        "questions.jsonl:1": "Who?",
        "questions.jsonl:3": "How many?",
    }
    with pytest.raises(UserError, match=r"line 4 has no text in field 'turns\.0' \(fields: \['category', 't"):
        read()
    with pytest.raises(UserError, match=r"no text in it in the records that 'where' chooses"):
        read(category=["none"])
    with pytest.raises(UserError, match=r"line 1 has no field 'kind'; correct the key 'where'"):
        read(kind=["qa"])


def test_a_field_whose_name_has_a_dot_comes_first(make_text, tmp_path):
    path = write_jsonl(tmp_path / "dotted.jsonl", [{"a.b": "whole", "a": {"b": "within"}}])
    (document,) = read_corpus(make_text(source="local", path=str(path), text="a.b"))
    assert document.text == "whole"


def test_json_lines_in_a_wheel(make_text: MakeText, make_wheel: Callable) -> None:
    records = [{"task": f"T/{number}", "prompt": f"import re\n\nProblem {number}"} for number in range(20)]
    content = gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode())
    make_wheel({"carrier/records.jsonl.gz": content})
    manifest = make_text(
        source="wheel",
        package="carrier",
        version="1.0",
        file="carrier/records.jsonl.gz",
        sha256=hashlib.sha256(content).hexdigest(),
        text="prompt",
        id="task",
        split="heldout",
    )
    documents = by_id(manifest)
    # Prompts of one split keep their lines, shared ones included.
    assert {name: document.text for name, document in documents.items()} == {
        record["task"]: record["prompt"] for record in records
    }
    facts = open_artefact(manifest)[1].facts
    assert facts["documents"] == {"heldout": 20}
    assert facts["characters"] == {"heldout": sum(len(record["prompt"]) for record in records)}


def test_a_data_set(make_text: MakeText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    records = [{"body": f"Row {number}."} for number in range(10)] + [{"body": ""}]
    data = write_jsonl(tmp_path / "rows.json", records)
    source = {"source": "dataset", "name": "json", "data_files": str(data), "text": "body"}
    assert {name: (d.kind, d.text) for name, d in by_id(make_text(**source)).items()} == {
        f"train:{number}": ("row", f"Row {number}.") for number in range(10)
    }
    assert set(by_id(make_text(**source, documents=3))) == {"train:0", "train:1", "train:2"}
    with pytest.raises(UserError, match=r"'json' has no text in column 'text' \(columns: \['body'\]\)"):
        make_text(**{**source, "text": "text"})
    with pytest.raises(UserError, match=r"data set 'json' cannot be read.*'hub_split'"):
        make_text(**{**source, "hub_split": "test"})
    with pytest.raises(UserError, match=r"data set 'json' cannot be read"):
        make_text(**{**source, "data_files": str(tmp_path / "absent.json")})


@pytest.mark.parametrize(
    "name", ["a[1].json", "b*.json", "c?.json", "d{x,y}.json", "e!(x)#%20 z.json", "[f]/g.json"]
)
def test_the_file_of_a_data_set_is_no_pattern(
    make_text: MakeText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    # Files that the name would match if it were a pattern.
    for similar in ("a1.json", "bb.json", "cc.json", "dx.json"):
        write_jsonl(tmp_path / "data" / similar, [{"text": "Another's."}])
    write_jsonl(path, [{"text": "Mine."}])
    (document,) = read_corpus(make_text(source="dataset", name="json", data_files=str(path)))
    assert document.text == "Mine."
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    (document,) = read_corpus(make_text(source="dataset", name="json", data_files=f"~/{name}"))
    assert document.text == "Mine."


@pytest.mark.parametrize(
    ("builder", "name", "content", "complaint"),
    [
        ("json", "empty.json", b"", "cannot be read"),
        ("csv", "empty.csv", b"", "cannot be read: No columns to parse from file"),
        ("text", "empty.txt", b"", "no text in it"),
        ("parquet", "empty.parquet", b"", "cannot be read: Parquet file size is 0 bytes"),
        ("json", "half.json", b'{"text": "a"}\n{"te', "cannot be read: JSON parse error"),
        ("json", "latin.json", b'{"text": "caf\xe9"}', "cannot be read: 'utf-8' codec can't decode"),
        (
            "json",
            "cut.json.gz",
            gzip.compress(b'{"text": "a"}\n' * 1000)[:50],
            "cannot be read: Compressed file ended",
        ),
        ("json", "odd.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("json", "odd.zip", b"PK\x03\x04no zip", "cannot be read: File is not a zip file"),
        ("csv", "ragged.csv", b"text\na\nb,c,d\n", "cannot be read: Error tokenizing data"),
        ("json", "number.json", b"3", "cannot be read: JSON parse error"),
        ("nobody-has-this", "a.json", b"{}", "cannot be read: Couldn't reach"),
    ],
)
def test_the_file_of_a_data_set_that_cannot_be_used(
    make_text: MakeText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    builder: str,
    name: str,
    content: bytes,
    complaint: str,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^data set '{builder}'(: | ){complaint}"):
        make_text(source="dataset", name=builder, data_files=str(tmp_path / name))


def test_the_text_of_python(make_text: MakeText) -> None:
    manifest = make_text(source="python", window=5000, python=platform.python_version())
    documents = by_id(manifest)
    assert documents["topic:assert"].text.startswith('The "assert" statement')
    assert documents["module:json.decoder"].text.startswith('"""Implementation of JSONDecoder')
    assert "module:json" in documents
    modules = [document for document in documents.values() if document.kind == "module"]
    topics = [document for document in documents.values() if document.kind == "topic"]
    assert len(modules) > 250
    assert len(topics) > 60
    assert all(len(document.text) <= 5000 for document in modules)
    assert not [name for name in documents if {"test", "tests", "site-packages"} & set(name[7:].split("."))]
    facts = open_artefact(manifest)[1].facts
    # Paragraphs that repeat are a fifth of the topics alone.
    assert sum(facts["characters"].values()) < facts["characters_read"] - 50_000
    shares = {split: count / len(documents) for split, count in facts["documents"].items()}
    assert shares == pytest.approx({"train": 0.6, "validation": 0.1, "heldout": 0.3}, abs=0.07)


def test_the_text_of_another_python(make_text: MakeText) -> None:
    with pytest.raises(UserError, match=rf"CPython 3.0.0, but this is {platform.python_version()}"):
        make_text(source="python", python="3.0.0")


def test_no_paragraph_is_in_two_documents(make_text: MakeText, tmp_path: Path) -> None:
    shared = "    A paragraph that\n    occurs everywhere."
    texts = {
        f"{number:02}.txt": f"Only {number}.\n \n{shared}\n\n\nAlso only {number}.\n" for number in range(30)
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    documents = by_id(make_text(source="local", path=str(folder)))
    assert documents["00.txt"].text == texts["00.txt"]
    assert [name for name, document in documents.items() if shared in document.text] == ["00.txt"]
    assert documents["07.txt"].text == "Only 7.\n \nAlso only 7.\n"
    assert {document.split for document in documents.values()} == {"train", "validation", "heldout"}


def test_a_new_document_moves_no_other(make_text: MakeText, tmp_path: Path) -> None:
    records = [{"text": f"Text {number}."} for number in range(200)]
    path = str(write_jsonl(tmp_path / "records.jsonl", records))
    before = read_corpus(make_text(source="local", path=path))
    write_jsonl(tmp_path / "records.jsonl", [*records, {"text": "One more."}])
    after = read_corpus(make_text(source="local", path=path))
    assert len(after) == 201
    assert [document for document in after if document.id != "records.jsonl:201"] == before


def test_order_and_split_come_from_the_seed(make_text: MakeText, tmp_path: Path) -> None:
    records = [{"text": f"Text {number}."} for number in range(200)]
    path = str(write_jsonl(tmp_path / "records.jsonl", records))
    first = make_text("one", source="local", path=path)
    same = make_text("same", source="local", path=path)
    reseeded = make_text("other", seed=1, source="local", path=path)
    assert open_artefact(first)[1].files == open_artefact(same)[1].files
    ids = [[document.id for document in read_corpus(manifest)] for manifest in (first, reseeded)]
    assert ids[0] != ids[1]
    assert sorted(ids[0]) == sorted(ids[1])
    moved = [name for name, document in by_id(first).items() if document.split != by_id(reseeded)[name].split]
    assert 60 < len(moved) < 160


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"mine.txt: no text in it"),
        (b" \n\n\t\n", r"mine.txt: no text in it"),
        (b"caf\xe9", r"mine.txt: not UTF-8 .* at byte 3"),
        ("UTF-16".encode("utf-16-le"), r"mine.txt: not text in UTF-8 \(it has zero bytes\)"),
    ],
)
def test_a_text_file_that_cannot_be_used(
    make_text: MakeText, tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        make_text(source="local", path=str(tmp_path / "mine.txt"))
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"text": "a"}\n{"text": \n', r"mine.jsonl: line 2 is not JSON"),
        (b'{"text": "caf\xe9"}\n', r"mine.jsonl: line 1 is not JSON in UTF-8"),
        (b'["a"]\n', r"mine.jsonl: line 1 is not a JSON object"),
        (b"[" * 100_000, r"mine.jsonl: line 1 is not JSON in UTF-8 \(maximum recursion"),
        ('{"text": "UTF-16"}\n'.encode("utf-16-be"), r"mine.jsonl: line 1 is not JSON in UTF-8"),
        (b'{"body": "a"}\n', r"mine.jsonl: line 1 has no text in field 'text' \(fields: \['body'\]\)"),
        (b'{"text": null}\n', r"mine.jsonl: line 1 has no text in field 'text'"),
        (b'{"text": "a \\ud800"}\n', r"mine.jsonl: document 'mine.jsonl:1' is not valid Unicode"),
    ],
)
def test_json_lines_that_cannot_be_used(
    make_text: MakeText, tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "mine.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        make_text(source="local", path=str(tmp_path / "mine.jsonl"))


def test_two_documents_of_one_name(make_text: MakeText, make_wheel: Callable) -> None:
    content = b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n'
    make_wheel({"carrier/records.jsonl": content})
    source = {"package": "carrier", "version": "1.0", "file": "carrier/records.jsonl"}
    source["sha256"] = hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match=r"carrier/records.jsonl: two documents are called '1'"):
        make_text(source="wheel", id="id", **source)
    with pytest.raises(UserError, match=r"records.jsonl: line 1 has no field 'name'; correct the key 'id'"):
        make_text(source="wheel", id="name", **source)


def test_nothing_there(make_text: MakeText, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent: no such file or folder"):
        make_text(source="local", path=str(tmp_path / "absent"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: holds no \.jsonl, \.md"):
        make_text(source="local", path=str(tmp_path / "folder"))


def test_columns_and_packed_rows_of_a_data_set(
    make_text: MakeText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema of databricks-dolly-15k, whose rows are shorter than a training window."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    rows = [
        {"instruction": f"Ask {number}?", "context": "Known." * (number % 2), "response": f"Say {number}."}
        for number in range(5)
    ]
    data = write_jsonl(tmp_path / "dolly.jsonl", rows)
    source = {
        "source": "dataset",
        "name": "json",
        "data_files": str(data),
        "text": ["instruction", "context", "response"],
        "split": "heldout",
    }
    documents = by_id(make_text(**source))
    assert documents["train:0"].text == "Ask 0?\n\nSay 0."
    assert documents["train:1"].text == "Ask 1?\n\nKnown.\n\nSay 1."
    packed = by_id(make_text(**source, pack=30))
    # The last row alone would be too short, and is dropped.
    assert {name: document.kind for name, document in packed.items()} == {
        "train:0-1": "rows",
        "train:2-3": "rows",
    }
    assert packed["train:0-1"].text == "Ask 0?\n\nSay 0.\nAsk 1?\n\nKnown.\n\nSay 1.\n"


def test_rows_of_two_texts_are_never_joined(make_text: MakeText, tmp_path: Path) -> None:
    rows = [
        " = One = \n",
        "first\n",
        " = = A part = = \n",
        "second\n",
        "third\n",
        " = Two = \n",
        "fourth\n",
        "5\n",
    ]
    data = tmp_path / "articles.jsonl"
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    source = {"source": "dataset", "name": "json", "data_files": str(data), "split": "heldout", "pack": 12}
    overlay = yaml.safe_load((ROOT / "workflow/studies/paper-scale.yaml").read_text())
    texts = by_id(make_text(**source, begins=overlay["texts"]["wikitext2"]["begins"]))
    assert {name: document.text for name, document in texts.items()} == {
        "train:0-1": " = One = \nfirst\n",
        "train:2-2": " = = A part = = \n",
        "train:3-4": "second\nthird\n",
        "train:5-6": " = Two = \nfourth\n",
    }
    # Without `begins`, the end of one article and the title of the next become one document.
    joined = by_id(make_text(**source | {"pack": 20}))
    assert any("third" in document.text and "Two" in document.text for document in joined.values())


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(ValidationError, match=r"no regular expression .*correct it"):
        DatasetText(source="dataset", name="json", pack=9, begins="(")
    with pytest.raises(ValidationError, match="'begins' parts texts whose rows 'pack' joins"):
        DatasetText(source="dataset", name="json", begins="^ = ")


def test_a_revision_that_nobody_filled_in(make_text: MakeText) -> None:
    with pytest.raises(UserError, match=r"'some/books': put the commit .* key 'revision'"):
        make_text(source="dataset", name="some/books", revision="FILL-IN")


def test_hidden_files_of_a_folder_are_nobody_s_text(make_text: MakeText, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/notes.txt").write_text("Not mine.")
    (folder / "a.txt").write_text("Mine.")
    before = content_hash(folder, "texts.mine.path")
    (folder / ".git/index").write_bytes(b"changed by a fetch")
    assert content_hash(folder, "texts.mine.path") == before
    assert list(by_id(make_text(source="local", path=str(folder)))) == ["a.txt"]


def test_what_lies_behind_links_is_read_and_hashed(make_text: MakeText, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    for path in (folder / "inner/deep", elsewhere / "sub"):
        path.mkdir(parents=True)
    (folder / "inner/deep/a.txt").write_text("Here.")
    (elsewhere / "sub/b.txt").write_text("There.")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "inner/c.txt").symlink_to(elsewhere / "sub/b.txt")
    # A hidden link is not followed: an editor's lock is a broken link.
    (folder / ".#a.txt").symlink_to("nobody@nowhere.1:2")
    assert set(by_id(make_text(source="local", path=str(folder), split="train"))) == {
        "inner/deep/a.txt",
        "inner/c.txt",
        "linked/sub/b.txt",
    }
    before = content_hash(folder, "texts.mine.path")
    (elsewhere / "sub/b.txt").write_text("Other.")
    edited = content_hash(folder, "texts.mine.path")
    (elsewhere / "sub/new.txt").write_text("New.")
    assert len({before, edited, content_hash(folder, "texts.mine.path")}) == 3


def test_what_in_a_folder_cannot_be_read_is_refused(make_text: MakeText, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("Mine.")

    def complaint() -> str:
        with pytest.raises(UserError) as planned:
            content_hash(folder, "texts.mine.path")
        with pytest.raises(UserError) as read:
            make_text(source="local", path=str(folder))
        assert str(planned.value) == str(read.value)
        return str(read.value)

    odd = folder / "sub/odd.txt"
    odd.symlink_to("gone.txt")
    assert complaint() == f"{odd}: a link to nothing; mend or remove it"
    odd.unlink()
    odd.symlink_to(odd)
    assert complaint() == f"{odd}: a link to nothing; mend or remove it"
    odd.unlink()
    odd.symlink_to(folder)
    assert complaint() == f"{odd}: a link to a folder that it lies in; remove it"
    odd.unlink()
    os.mkfifo(odd)
    assert complaint() == f"{odd}: neither a file nor a folder; take it out of its folder"


def test_kinds_of_files_are_told_in_capitals_too(
    make_text: MakeText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "A.TXT").write_text("First.")
    write_jsonl(folder / "B.JSONL", [{"text": "Second."}])
    write_jsonl(folder / "c.ndjson", [{"text": "Third."}])
    for name in ("d.json", "E.CSV", "f.csv", "LICENSE"):
        (folder / name).write_text("{}")
    manifest = make_text(source="local", path=str(folder))
    assert {name: document.text for name, document in by_id(manifest).items()} == {
        "A.TXT": "First.",
        "B.JSONL:1": "Second.",
        "c.ndjson:1": "Third.",
    }
    assert open_artefact(manifest)[1].facts["files_not_read"] == {"": 1, ".csv": 2, ".json": 1}
    said = "mine: files of other kinds are not read: 1 without a suffix, 2 .csv, 1 .json\n"
    assert said in capsys.readouterr().err
    for name in ("B.JSONL", "c.ndjson"):
        (document,) = read_corpus(make_text(source="local", path=str(folder / name)))
        assert document.kind == "record"
    for name in ("d.json", "E.CSV"):
        with pytest.raises(UserError, match=rf"{name}: holds records, not prose; save them as JSON lines"):
            make_text(source="local", path=str(folder / name))


def test_a_home_folder_is_meant_by_its_sign(
    make_text: MakeText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("Mine.")
    assert [*by_id(make_text(source="local", path="~/mine.txt"))] == ["mine.txt"]
    source = PrepareTextSpec.model_validate({"text": {"source": "local", "path": "~/mine.txt"}}).text
    planned = source_hashes(source, "texts.mine", sha256_file)
    assert planned == {"files": content_hash(tmp_path / "mine.txt", "texts.mine.path")}
    require_source_unchanged(source, planned)
    with pytest.raises(UserError, match="no home folder is known for '~'; write the path out"):
        make_text(source="local", path="~nobody-of-this-name/mine.txt")


@pytest.mark.parametrize(
    "source",
    [
        {"source": "local", "path": ""},
        {"source": "dataset", "name": ""},
        {"source": "dataset", "name": "json", "data_files": ""},
    ],
)
def test_an_empty_path_is_not_the_working_directory(source: dict) -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        PrepareTextSpec.model_validate({"text": source})


def test_a_text_that_was_edited_after_planning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("As planned.")
    spec = PrepareTextSpec.model_validate({"text": {"source": "local", "path": str(path)}, "seed": 0})
    run = run_of(spec, tmp_path / "corpus/manifest.json")
    planned = content_hash(path, "texts.mine.path")
    run.job = run.job.model_copy(update={"input_digests": {"files": planned}})
    prepare_text(run)
    path.write_text("Edited.")
    with pytest.raises(UserError, match=r"mine\.txt: edited after this job was planned; run snakemake again"):
        prepare_text(run)
    path.unlink()
    with pytest.raises(UserError, match=r"mine\.txt"):
        prepare_text(run)
