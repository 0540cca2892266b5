"""What YAML lets pass, and PyYAML trips over, ends in one line that names the file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.study.__main__ import _configuration
from ablations.study.config.reading import read_yaml
from ablations.study.config.validation import load_study

ROOT = Path(__file__).parents[3]

LAUGHING = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"sdtp:\n\tmodel: a\n", "not YAML: .* cannot start any token"),
        (b"study: !python/object:os.system x\n", "not YAML: could not determine a constructor for the tag"),
        (b"study: !mine x\n", "not YAML: could not determine a constructor for the tag"),
        (b"? [a, b]\n: 1\n", "not YAML: .* found unhashable key"),
        (b"? {a: b}\n: 1\n", "not YAML: .* found unhashable key"),
        (b"sdtp:\n  <<: 3\n", "not YAML: .* expected a mapping"),
        (b"study: *nope\n", "not YAML: found undefined alias"),
        (b"study: a\n---\nstudy: b\n", r"holds several documents \(---\); a study is one"),
        (b"study: 2026-13-45\n", "a value means nothing to YAML .*; quote or correct it"),
        (b"seed: " + b"9" * 5000, "a value means nothing to YAML .*5000 digits"),
        (b"seed: !!int abc\n", "a value means nothing to YAML"),
        (b"seed: !!bool abc\n", "a value means nothing to YAML"),
        (b"seed: !!timestamp abc\n", "a value means nothing to YAML"),
        ("study: caf\xe9\n".encode("latin-1"), "not UTF-8; save it as UTF-8"),
        ("study: caf\xe9\n".encode("utf-16"), "not UTF-8; save it as UTF-8"),
        (b"study: a\0b\n", "not YAML: .* control characters are not allowed"),
        (b"study: &a [*a]\n", "the anchor 'a' contains itself; write it out"),
        (b"sdtp: &a\n  training: *a\n", "the anchor 'a' contains itself; write it out"),
        (b"study: " + b"[" * 20_000 + b"]" * 20_000, "nested too deeply, or too large"),
        (b"study: " + b"{a: " * 5000 + b"}" * 5000, "nested too deeply, or too large"),
        (LAUGHING.encode(), "nested too deeply, or too large once its aliases are followed; shorten it"),
        (b"- a\n", "a study's configuration is a map of keys"),
        (b"", "a study's configuration is a map of keys"),
    ],
)
def test_an_odd_overlay_is_named(tmp_path, monkeypatch, content, complaint):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        _configuration([path])
    line = " ".join(str(error.value).split())
    assert line.startswith(f"{path}: ")
    assert re.search(complaint, line), line


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"study: 2026-01-01\n", "study: YAML reads '2026-01-01' as a date; quote or correct it"),
        (b"study: !!binary aGVsbG8=\n", "study: YAML reads \"b'hello'\" as a bytes; quote or correct it"),
        (
            b"sdtp: {ablations: {Z1: {change: {mask: 2026-01-01}}}}\n",
            "sdtp.ablations.Z1.change.mask: YAML reads",
        ),
        (b"sdtp: !!set {a, b}\n", "sdtp: YAML reads .* as a set; quote or correct it"),
        (b"seed: 0x" + b"f" * 5000, "seed: a whole number of more than 64 bits; choose a smaller one"),
        (b"seed: 99999999999999999999\n", "seed: a whole number of more than 64 bits; choose a smaller one"),
        (b"seed: .nan\n", "seed: input should be a finite number"),
        (b"1: x\n", "config: the key 1 is no text of one line"),
    ],
)
def test_a_value_that_no_key_takes_is_named(tmp_path, monkeypatch, content, complaint):
    monkeypatch.chdir(ROOT)
    (tmp_path / "odd.yaml").write_bytes(content)
    raw = _configuration([tmp_path / "odd.yaml"])
    with pytest.raises(UserError, match=f"^{complaint}"):
        load_study(raw)


def test_anchors_merge_keys_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: *a}\nc: [*a, *a]\n", encoding="utf-8-sig")
    one = {"x": 1}
    assert read_yaml(path) == {"a": one, "b": {"x": 1, "y": one}, "c": [one, one]}


def test_overlays_are_merged_as_snakemake_merges_them(tmp_path, monkeypatch):
    """Among themselves first: null in one of them, and a map in a later one, change the map below."""
    files = {
        "config.yaml": "a: {x: 1, y: 2}\nb: {z: {x: 1}}\nc: 1\n",
        "one.yaml": "a: null\nb: {z: {y: 2}}\nd: {w: 1}\n",
        "two.yaml": "a: {y: 3}\nd: {v: 1}\nc: null\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "Snakefile").write_text(
        'configfile: "config.yaml"\nimport json\nopen("seen.json", "w").write(json.dumps(config))\n'
        "rule all:\n    shell: 'true'\n"
    )
    monkeypatch.chdir(tmp_path)
    overlays = [Path("one.yaml"), Path("two.yaml")]
    command = ["snakemake", "--dry-run", "--cores", "1", "--configfile", *map(str, overlays)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    seen = (tmp_path / "seen.json").read_text()
    assert json.dumps(_configuration(overlays)) == seen
    assert json.loads(seen)["a"] == {"x": 1, "y": 3}


@pytest.mark.usefixtures("working_folder")
def test_what_a_terminal_cannot_show_is_escaped():
    for name in ("config.yaml", "constraints.txt"):
        Path(name).symlink_to(ROOT / name)
    Path("mine.yaml").write_text("sdtp: {ablations: {A7: {title: Größe ✓}}}\n", encoding="utf-8")
    for variables in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ablations.study", "show", "A7", "--configfile", "mine.yaml"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("A7: Gr\\xf6\\xdfe \\u2713\n")
