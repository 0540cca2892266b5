"""Where a result cannot be written is known before anything is read or drawn."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# One interpreter imports all commands; each runs in a child of it, as a failing command ends its process.
RUN = """
import json, os, sys
from importlib import import_module
for module, *arguments in json.loads(sys.argv[1]):
    main = import_module(module).main
    sys.argv = [module, *arguments]
    if not (child := os.fork()):
        main()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

SUMMARY = ("--summary", "no.json")
TEMPLATES = ("--templates", "no")


def commands(file: str, folder: str) -> list[tuple[str, ...]]:
    """Every command of the paper with outputs, none of whose inputs are there; the bad output comes last."""
    return [
        ("ablations.paper.collect", "--plan", "no.json", "--out", file),
        ("ablations.paper.section", *SUMMARY, *TEMPLATES, "--out", file),
        ("ablations.paper.page", *SUMMARY, "--plan", "no.json", *TEMPLATES, "--out", file),
        ("ablations.paper.numbers", *SUMMARY, *TEMPLATES, "--provenance", "fine.json", "--macros", file),
        ("ablations.paper.numbers", *SUMMARY, *TEMPLATES, "--macros", "fine.tex", "--provenance", file),
        ("ablations.paper.join", "no.json", "no.json", *TEMPLATES, "--out", file),
        ("ablations.paper.pdf", "--main", "no.tex", "--out", file),
        ("ablations.paper.benchmark", "--plan", "no.json", "--table", "fine.md", "--out", file),
        ("ablations.paper.benchmark", "--plan", "no.json", "--out", "fine.json", "--table", file),
        ("ablations.paper.archive", "pack", "--plan", "no.json", "--out", file),
        ("ablations.paper.tables", *SUMMARY, *TEMPLATES, "--out", folder),
        ("ablations.paper.figures", *SUMMARY, "--out", folder),
        ("ablations.paper.archive", "build", "no.tar.gz", "--out", folder),
    ]


@pytest.mark.parametrize("kind", ["below a file", "a folder", "made by nobody"])
def test_an_output_that_cannot_be_written_is_the_first_error(tmp_path, kind):
    (tmp_path / "taken").touch()
    (tmp_path / "folder").mkdir()
    file, folder = {
        "below a file": ("taken/x", "taken/x"),
        "a folder": ("folder", "taken"),
        "made by nobody": ("/proc/none/x", "/proc/none"),
    }[kind]
    tried = commands(file, folder)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(tried)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["1"] * len(tried), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(tried)
    for line, command in zip(lines, tried, strict=True):
        option, path = command[-2:]
        assert line.startswith(f"error: {option}: {path}"), line
        assert "cannot be written (" in line and line.endswith("; choose another file")
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "folder"}


def test_every_command_that_writes_is_tried():
    """A new command with an output belongs into `commands`; jobs check theirs in `ablations.core.job`."""
    source = Path(__file__).parents[2] / "src/ablations"
    writing = {
        path.stem
        for path in (source / "paper").glob("*.py")
        if "require_out(" in (text := path.read_text()) or ("add_argument" in text and "to write" in text)
    }
    assert writing == {command[0].rpartition(".")[2] for command in commands("", "")}
