"""The workflow used from another folder: with --directory, and as a module of another workflow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import PATIENCE, TINY, Checkout

MODULE = """
import yaml
from snakemake.utils import update_config

config = yaml.safe_load(open("{root}/config.yaml"))
update_config(config, yaml.safe_load(open("{root}/{tiny}")))

module ablations:
    snakefile: "{root}/Snakefile"
    config: config
    {more}

use rule * from ablations as ablations_*

rule mine:
    default_target: True
    input: "paper/ablation.tex"
    output: "mine.txt"
    shell: "wc -l {{input}} > {{output}}"
"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def a_text_of_the_checkout(folder: Path) -> Path:
    """Manifest of a text that is shipped with the checkout."""
    (found,) = (
        path
        for path in (folder / "results/text").glob("*/manifest.json")
        if json.loads(path.read_text())["spec"]["text"].get("path") == "texts/chat.jsonl"
    )
    return found


@pytest.fixture
def elsewhere(study, tmp_path) -> Path:
    """A folder that holds nothing but what was measured, without one text."""
    folder = tmp_path / "else where"
    shutil.copytree(study.path / "results", folder / "results")
    a_text_of_the_checkout(folder).unlink()
    (folder / "results/summary.json").unlink()
    return folder


def test_another_directory_holds_all_that_is_made(study: Checkout, elsewhere):
    text = a_text_of_the_checkout(study.path).relative_to(study.path)
    before = {path: path.stat().st_mtime_ns for path in (study.path / "paper").rglob("*")}
    command = ["snakemake", "--cores", "1", "--directory", str(elsewhere), "--configfile", TINY]
    done = run(study.path, *command, "--", str(text), "paper/ablation.tex", "paper/results.html")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / text).exists()
    for name in ("ablation.tex", "numbers.tex", "tables/decoding.tex"):
        assert (elsewhere / "paper" / name).read_bytes() == (study.path / "paper" / name).read_bytes()
    assert before == {path: path.stat().st_mtime_ns for path in (study.path / "paper").rglob("*")}
    if shutil.which("latexmk"):
        done = run(study.path, *command, "--", "paper/ablation.pdf")
        assert done.returncode == 0, done.stderr
        assert (elsewhere / "paper/ablation.pdf").read_bytes().startswith(b"%PDF")


def test_another_workflow_uses_this_one_as_a_module(study: Checkout, elsewhere):
    text = a_text_of_the_checkout(study.path).relative_to(study.path)
    (elsewhere / "Snakefile").write_text(MODULE.format(root=study.path, tiny=TINY, more=""))
    done = run(elsewhere, "snakemake", "--cores", "1", "--", str(text), "mine.txt")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / text).exists()
    assert "paper/ablation.tex" in (elsewhere / "mine.txt").read_text()
    assert "Nothing to be done" in run(elsewhere, "snakemake", "--cores", "1", "-n").stdout


def test_a_module_whose_files_are_moved_is_refused(study: Checkout, elsewhere):
    (elsewhere / "Snakefile").write_text(MODULE.format(root=study.path, tiny=TINY, more='prefix: "sub"'))
    done = run(elsewhere, "snakemake", "--cores", "1", "-n")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: prefix: the files of this module keep their paths")


def test_questions_are_answered_in_another_directory(study: Checkout, elsewhere):
    done = subprocess.run(
        [sys.executable, "-m", "ablations.study", "status", "--configfile", str(study.path / TINY)],
        cwd=elsewhere,
        env=study.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fresh" in done.stdout
    assert "stale" not in done.stdout
