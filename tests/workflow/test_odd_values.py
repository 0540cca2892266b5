"""Text of the configuration is data: no shell ever runs it, and jobs write where they should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import TINY, Checkout, clone

# Each would make a file of this name if a shell ever read it.
ODD = 'it\'s a "study" $(touch pwned) `touch pwned`; touch pwned #'
LINES = f"{ODD}\ntouch pwned\n"

WATCH = """
import os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = os.path.realpath(os.fsdecode(path))
            os.write(2, f"wrote {path}\\n".encode())
    if event in ("os.mkdir", "os.rename", "os.remove"):
        for path in arguments[: 2 if event == "os.rename" else 1]:
            os.write(2, f"wrote {os.path.realpath(os.fsdecode(path))}\\n".encode())
sys.addaudithook(watch)
"""


@pytest.mark.full
def test_a_folder_a_path_and_wording_that_a_shell_would_run_are_only_text(tmp_path):
    study = clone(tmp_path / ODD)
    text = f"texts {ODD}.txt"
    (study.path / text).write_text("\n".join(f"Line {line} of a text of mine." for line in range(200)))
    odd = {
        "study": LINES,
        "models": {"tiny_llama": {"description": LINES}},
        "texts": {"mine": {"source": "local", "path": text, "description": LINES}},
        "sdtp": {"text": "mine", "ablations": {"A7": {"title": LINES, "hypothesis": LINES}}},
    }
    overlay = study.path / f"{ODD}.yaml"
    overlay.write_text(yaml.safe_dump(odd))
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    overlays = ["--configfile", TINY, overlay.name]
    planned = run([*command, "--dry-run", "A7", *overlays], study)
    assert planned.returncode == 0, planned.stderr
    (digest,) = {
        spec.stem
        for spec in (study.path / "results/spec").glob("*.json")
        if ODD in spec.read_text().replace('\\"', '"')
    }
    done = run([*command, f"results/text/{digest}/manifest.json", *overlays], study)
    assert done.returncode == 0, done.stderr
    assert "Line 7 of a text of mine." in (study.path / f"results/text/{digest}/documents.jsonl").read_text()
    assert not [*tmp_path.rglob("pwned")]


@pytest.mark.full
@pytest.mark.parametrize("name", ["A7", "F4"])
def test_a_job_writes_its_results_and_nothing_elsewhere(name, study, tmp_path):
    watcher = tmp_path / "watcher"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(WATCH)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    folders = study.series(name).values()
    study.forget(name)
    commands = study.commands(name)
    # What drafts is replayed, too.
    assert len(commands) == {"A7": 2, "F4": 3}[name]
    environment = {"PYTHONPATH": f"{watcher}:{study.path / 'src'}", "TMPDIR": str(scratch), "HOME": str(home)}
    # A test that compiled something has left the place of torch's cache in this process's environment.
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(scratch)
    written = set()
    for command in commands:
        done = run([sys.executable, *command], study, environment | {"PYTHONDONTWRITEBYTECODE": "1"})
        assert done.returncode == 0, done.stderr
        written |= {Path(path) for path in re.findall(r"^wrote (.*)$", done.stderr, re.MULTILINE)}
    # Results and the device's lock are written, so the watch works.
    for folder in (*folders, study.path / "results/record"):
        assert any(path.is_relative_to(folder) for path in written)
    allowed = [study.path / "results", scratch, Path("/dev"), Path("/proc")]
    assert not [path for path in written if not any(path.is_relative_to(place) for place in allowed)]
    assert not [*home.rglob("*")]


def run(command: list[str], study: Checkout, environment: dict[str, str] | None = None):
    return subprocess.run(
        command,
        cwd=study.path,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
