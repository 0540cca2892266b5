"""What a user's folder, home and environment hold: it works, or one line says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, TINY, Checkout, clone

NAMELESS = ("unshare", "--user", "--map-user=54321")
"""Runs a command as a user whose id has no name."""

WITHOUT_GRIMP = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "grimp":
            raise ModuleNotFoundError("No module named 'grimp'", name=name)

sys.meta_path.insert(0, Missing())
from snakemake.cli import main

main(["--dry-run", "--cores", "1"])
"""


def may_be_nameless() -> bool:
    try:
        return subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout in which nothing was built."""
    return clone(tmp_path / "checkout")


def run(folder: Path, *command: object, **variables: str | None) -> subprocess.CompletedProcess:
    """Run a command where these variables are set, or not set at all."""
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def plan(*words: str) -> list[str]:
    return [*words, sys.executable, "-m", "snakemake", "--cores", "1", "-n", "--configfile", TINY, "--", "A7"]


def test_no_job_executes_a_users_file_that_is_called_like_a_module_of_python(fresh):
    for name in ("token", "random", "types", "statistics", "json"):
        (fresh.path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    # As the script `snakemake` starts it, which does not look into the working directory.
    command = [Path(sys.executable).with_name("snakemake"), "--cores", "1", "--configfile", TINY]
    done = run(fresh.path, *command, "--until", "prepare_model", "--", "A7")
    assert done.returncode == 0, done.stderr
    assert len([*(fresh.path / "results/model").glob("*/manifest.json")]) == 1


@pytest.mark.parametrize("name", ["token", "random", "statistics", "json", "pathlib"])
def test_no_command_does_either(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    for module in ("ablations.study", "ablations.paper.figures"):
        done = run(tmp_path, sys.executable, "-m", module, "--help", PYTHONPATH=str(ROOT / "src"))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["results", "logs", "benchmarks", "paper/tables", "results/record"])
def test_a_link_that_leads_nowhere_is_named(fresh, name, tmp_path):
    folder = fresh.path / name
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "gone")
    done = run(fresh.path, *plan())
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        f"error: {name}: a link to {tmp_path / 'gone'}, which is not there; make it, or remove the link"
    )
    (tmp_path / "gone").mkdir()
    assert run(fresh.path, *plan()).returncode == 0


def test_a_file_where_a_folder_belongs_is_named(fresh):
    (fresh.path / "results").write_text("")
    done = run(fresh.path, *plan())
    assert done.stderr.splitlines()[-1] == "error: results: a file where a folder belongs; move it away"


def test_the_snakemake_of_another_environment_is_named(fresh):
    done = run(fresh.path, sys.executable, "-c", WITHOUT_GRIMP)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: No module named 'grimp': this snakemake ({sys.executable}) is another")
    assert f"use .venv/bin/snakemake of {fresh.path}" in last


def test_no_home_is_needed(fresh):
    assert run(fresh.path, *plan(), HOME=None).returncode == 0


@pytest.mark.skipif(not may_be_nameless(), reason="this process may not take another user id")
def test_a_home_and_a_name_that_are_missing_can_be_given(fresh, tmp_path):
    """As the documentation says; without them, Snakemake ends with tracebacks of its own."""
    nobody = {"HOME": "/proc/nowhere", "USER": None, "LOGNAME": None}
    assert run(fresh.path, *plan(*NAMELESS), **nobody).returncode != 0
    done = run(fresh.path, *plan(*NAMELESS), **{**nobody, "HOME": str(tmp_path), "USER": "me"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("venv", ["my venv", ""])
def test_make_names_a_virtual_environment_that_it_cannot_use(venv):
    done = run(ROOT, "make", f"VENV={venv}", "help")
    assert done.returncode != 0
    assert f"VENV: '{venv}' must be one path without spaces" in done.stderr
