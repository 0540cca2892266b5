"""Whatever is in a file that a job or a question reads: it is read, or refused in one line."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.byhand import inputs as by_hand
from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.job import JobFile, read_job, require_code
from ablations.core.panel import Entry, PanelFile, read_panel
from ablations.core.record import read_contract
from ablations.lm.prepare_text import prepare_text
from ablations.lm.texts.dataset import dataset_documents
from ablations.lm.texts.local import files_not_read, local_documents
from ablations.paper.published import FILE, read_published
from ablations.specs.dynatree.calibrate_drafter import Acceptance
from ablations.specs.dynatree.costs import TargetCosts
from ablations.specs.lm import DatasetText, LocalText, PrepareTextSpec
from ablations.study.config.reading import read_yaml
from ablations.study.estimate.forecast import rates_of
from ablations.study.estimate.shapes import known_models, shape_of_folder
from ablations.study.planning.digests import Hashes, Pins
from ablations.study.status import _measurements, _moment
from ablations.study.timings import seconds_by_digest
from tests.lm.conftest import run_of

ROOT = Path(__file__).parents[1]
QUICK = 150
CASES = pytest.mark.parametrize("cases", [QUICK, pytest.param(3000, marks=pytest.mark.long)])

ODD = (
    *(
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"caf\xe9",
        b"\xed\xa0\x80",
        b'"\\ud800"',
        b"\r",
        b"\n",
        b"\t",
        b"\xe2\x80\xa8",
    ),
    *(
        b"[" * 100_000,
        b"{" * 3000,
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"-Infinity",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
    ),
    *(
        b"---\n",
        b"&a [*a]",
        b"*a",
        b"? [x]\n: y\n",
        b"!!binary x",
        b"!mine ",
        b"2026-13-45",
        b"<<: 3",
        b"{=: 1}",
        b"'",
        b"# ",
    ),
    *(b"==", b"; python_version < '3'", b"-r other", b"@ file:///x", b"../../x", b"\\", b"%s{}"),
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with up to three slips: cut off, something lost, something odd in it, or all of it changed."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 60)))
        kind = draw(st.sampled_from(["cut", "lose", "insert", "replace", "value", "value", "whole", "bytes"]))
        if kind == "cut":
            content = content[:start]
        elif kind == "value":
            # Another value where JSON or YAML has one.
            values = [match.span(1) for match in re.finditer(rb": *([^ ,\n}\]][^,\n}\]]*)", content)]
            if values:
                first, last = draw(st.sampled_from(values))
                content = content[:first] + draw(st.sampled_from(ODD)) + content[last:]
        elif kind == "whole":
            content = draw(st.sampled_from(ODD))
        elif kind == "bytes":
            content = draw(st.binary(max_size=40))
        else:
            new = draw(st.sampled_from(ODD)) if kind != "lose" else b""
            content = content[:start] + new + content[end if kind != "insert" else start :]
    return content


def questions_of(folder: Path, name: str) -> None:
    chosen = {"text": "turns.0", "where": {"category": ("qa", "math")}}
    for document in local_documents(LocalText(source="local", path=str(folder / name), **chosen)):
        assert isinstance(document.text, str)


def text_of(folder: Path, name: str) -> None:
    source = LocalText(source="local", path=str(folder / name))
    files_not_read(source)
    for document in local_documents(source):
        assert isinstance(document.text, str)
    spec = PrepareTextSpec.model_validate({"text": source.model_dump(), "seed": 0})
    prepare_text(run_of(spec, folder / "made/manifest.json"))
    open_artefact(folder / "made/manifest.json")


def rows_of(folder: Path, name: str) -> None:
    source = DatasetText(source="dataset", name="json", data_files=str(folder / name))
    for document in dataset_documents(source):
        assert isinstance(document.text, str)


def prompts_of(folder: Path, name: str) -> None:
    texts = by_hand.read_prompt_file(folder / name)
    made = folder / "prompts"
    if made.exists():
        (made / "documents.jsonl").unlink(missing_ok=True)
        (made / "manifest.json").unlink(missing_ok=True)
        made.rmdir()
    by_hand.prompts_manifest(texts, made)


def job_of(folder: Path, name: str) -> None:
    job = read_job(folder / name, PrepareTextSpec)
    require_code(job, folder / name)


def hashes_of(folder: Path, name: str) -> None:
    Hashes().sha256(folder / name)


def records_of(folder: Path, name: str) -> None:
    for measurement in _measurements().values():
        determinants = measurement.determinants
        assert isinstance(_moment(measurement), str)
        assert determinants.spec.get("timing") is None or determinants.inputs is not None
        assert f"{measurement.environment['seconds']:7.1f}"


def code_of(folder: Path, name: str) -> None:
    job = JobFile[PrepareTextSpec](digest="d", module="m", spec=SPEC, spec_digest="s", code_digest="c")
    require_code(job, folder / "results/spec/d.json")


SPEC = PrepareTextSpec.model_validate({"text": {"source": "local", "path": "a.txt"}})
RECORD = {
    "label": "A7",
    "spec": {"timing": None},
    "digests": {"code": "c", "inputs": {"model": "m"}, "pins": {"torch": "2"}},
    "environment": {"measured_at": "2026-01-01T00:00:00+00:00", "device": "cpu", "seconds": 1.0},
}
MANIFEST = {"module": "m", "spec": {}, "files": {}, "facts": {}, "seconds": 1.0} | {
    "digests": {"job": "d", "spec": "s", "code": "c", "inputs": {}, "pins": {}}
}
CONFIGURATION = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
} | {
    "intermediate_size": 128,
    "vocab_size": 258,
}
OVERLAY = (
    b"study: mine\nsdtp: &a\n  only: [A7, A9]\n  ablations:\n    Z1: {title: One, change: {mask: soft}}\n"
)
QUESTIONS = (
    b'{"question_id": 1, "category": "qa", "turns": ["One?", "And two?"]}\n'
    b'{"question_id": 2, "category": "math", "turns": ["Two?"]}\n'
)
LINES = b'{"text": "One.", "prompt": "a"}\n\n{"text": "Two.", "prompt": "b"}\n'

Reader = Callable[[Path, str], Any]
READERS: dict[str, tuple[str, bytes, Reader]] = {
    "overlay": ("mine.yaml", OVERLAY, lambda folder, name: read_yaml(folder / name)),
    "pins": (
        "constraints.txt",
        b"torch==2.13.0\nnumpy==2.1 # why\n",
        lambda folder, name: Pins.read(folder / name),
    ),
    "prose": ("mine.txt", "One.\n\nTwo, naïve.\n".encode(), text_of),
    "records": ("mine.jsonl", LINES, text_of),
    "questions": ("questions.jsonl", QUESTIONS, questions_of),
    "rows": ("mine.json", LINES, rows_of),
    "prompts": ("prompts.txt", b"one\ntwo\n", prompts_of),
    "prompt records": ("prompts.jsonl", LINES, prompts_of),
    "spec": (
        "spec/d.json",
        JobFile[PrepareTextSpec](digest="d", module="m", spec=SPEC, spec_digest="s", code_digest="c")
        .model_dump_json()
        .encode(),
        job_of,
    ),
    "panel": (
        "results/panel/p.json",
        PanelFile(
            rule="decode",
            module="ablations.dynatree.decode",
            entries=(Entry(digest="d", label="F1", out="results/block/d", spans=((0, 2),)),),
        )
        .model_dump_json()
        .encode(),
        lambda folder, name: read_panel(folder / name),
    ),
    "manifest": (
        "manifest.json",
        json.dumps(MANIFEST).encode(),
        lambda folder, name: open_artefact(folder / name),
    ),
    "acceptance": (
        "acceptance.json",
        Acceptance(stated=(0.0, 0.5, 1.0), accepted=(0.1, 0.4, 0.9)).model_dump_json().encode(),
        lambda folder, name: read_contract(folder / name, Acceptance),
    ),
    "target's costs": (
        "target.json",
        TargetCosts(rows=(1, 2), prefixes=(8,), verify=((0.1, 0.2),), prompt_tokens=(4,), prefill=(0.3,))
        .model_dump_json()
        .encode(),
        lambda folder, name: read_contract(folder / name, TargetCosts),
    ),
    "record": ("results/record/d.json", json.dumps(RECORD).encode(), records_of),
    "checkpoint": (
        "config.json",
        json.dumps(CONFIGURATION).encode(),
        lambda folder, name: shape_of_folder(folder),
    ),
    "published": (
        FILE,
        (ROOT / "paper/templates" / FILE).read_bytes()[:1500],
        lambda folder, name: read_published(folder),
    ),
    "models": (
        "models.yaml",
        (ROOT / "workflow/plan/models.yaml").read_bytes()[:800],
        lambda folder, name: known_models(folder / name),
    ),
    "devices": (
        "workflow/plan/devices.yaml",
        (ROOT / "workflow/plan/devices.yaml").read_bytes(),
        lambda folder, name: rates_of("h100"),
    ),
    "hashes": ("results/hashes.json", b'{"results/hashes.json": [1, 2, "abc"]}', hashes_of),
    "code": ("results/code/c.json", b'{"ablations.core.errors": "x"}', code_of),
    "times": (
        "benchmarks/decode/aa.tsv",
        b"s\tmax_rss\n9.5\t1\n2.5\t-\n",
        lambda folder, name: seconds_by_digest("decode"),
    ),
}


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def outcome(read: Callable[[], Any]) -> str | None:
    """The one line that refuses a file; None where it is read. Any other exception is a failure."""
    try:
        read()
    except UserError as error:
        # `fail` joins lines; a message has a place and a reason.
        line = " ".join(str(error).split())
        assert ": " in line
        return line
    return None


@CASES
@pytest.mark.parametrize("kind", READERS)
def test_a_file_is_read_or_refused_in_one_line(kind: str, cases: int, tmp_path: Path) -> None:
    name, content, reader = READERS[kind]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)

    @settings(
        # A data set takes a third of a second to open.
        max_examples=cases // 8 if kind == "rows" else cases,
        derandomize=cases <= QUICK,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(mutant=damaged(content))
    def read(mutant: bytes) -> None:
        (tmp_path / name).write_bytes(mutant)
        outcome(partial(reader, tmp_path, name))

    with inside(tmp_path):
        read()


@CASES
def test_an_overlay_means_what_yaml_says_where_it_is_not_refused(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    refused = []

    @settings(max_examples=cases, derandomize=cases <= QUICK, deadline=None, database=None)
    @given(mutant=damaged(OVERLAY))
    def read(mutant: bytes) -> None:
        path.write_bytes(mutant)
        line = outcome(lambda: read_yaml(path))
        refused.append(line is not None)
        if line is None:
            assert repr(read_yaml(path)) == repr(yaml.safe_load(mutant.decode()))

    read()
    # Both happen.
    assert len({*refused}) == 2


def test_damaged_saved_hashes_give_right_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    file = tmp_path / "a.txt"
    file.write_text("a")
    for content in ("[]", "3", '{"a.txt": 3}', '{"a.txt": [1]}', '{"a.txt": []}', "{", "[" * 100_000, "null"):
        (tmp_path / "results/hashes.json").write_text(content)
        assert Hashes().sha256(file) == sha256_file(file)
