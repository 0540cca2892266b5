"""A job refuses to run with other code or other versions than it was planned with."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from ablations.study.contracts.base import Contract
from ablations.study.errors import UserError
from ablations.study.job import JobFile, require_code, require_pins
from ablations.study.meaning import meaning, module_source

MODULE = "ablations.study.errors"
SAME = meaning(module_source(MODULE))


@pytest.fixture
def job() -> JobFile:
    return JobFile[Contract](digest="d", module=MODULE, spec={}, spec_digest="s", code_digest="c")


@pytest.fixture
def planned(tmp_path):
    """Writes what planning leaves beside the specs; returns the path of a spec."""

    def write(meanings: dict[str, str]) -> Path:
        (tmp_path / "code").mkdir()
        (tmp_path / "code/c.json").write_text(json.dumps(meanings))
        return tmp_path / "spec/d.json"

    return write


def test_code_as_it_was_planned_runs(job, planned, tmp_path):
    require_code(job, tmp_path / "spec/never-planned-here.json")
    require_code(job, planned({MODULE: SAME}))


@pytest.mark.parametrize(
    ("meanings", "named"),
    [({MODULE: "another"}, MODULE), ({MODULE: SAME, "ablations.study.gone": "any"}, "ablations.study.gone")],
)
def test_code_that_was_edited_or_is_gone_is_refused(job, planned, meanings, named):
    with pytest.raises(UserError, match=f"^{named}: edited after this job was planned; run snakemake again"):
        require_code(job, planned(meanings))


def test_a_version_other_than_the_pinned_one_is_refused():
    numpy = version("numpy")
    require_pins({"numpy": numpy})
    with pytest.raises(UserError, match=rf"pins numpy==0\.0\.1, but {numpy} is installed; install"):
        require_pins({"numpy": "0.0.1"})
    with pytest.raises(UserError, match=r"pins no-such-package==1, but none is installed"):
        require_pins({"no-such-package": "1"})


def test_a_local_build_of_the_pinned_version_is_that_version(monkeypatch):
    monkeypatch.setattr("ablations.study.job.version", lambda name: "2.13.0+cpu")
    require_pins({"torch": "2.13.0"})
