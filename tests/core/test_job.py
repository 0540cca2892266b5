"""A job refuses to run with other code or other versions than it was planned with."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from ablations.core.contract import Contract
from ablations.core.errors import UserError
from ablations.core.job import JobFile, require_code, require_pins
from ablations.core.meaning import meaning, module_source
from ablations.study.planning.digests import Pins

MODULE = "ablations.core.errors"
SAME = meaning(module_source(MODULE))


@pytest.fixture
def job() -> JobFile:
    return JobFile[Contract](digest="d", module=MODULE, spec={}, spec_digest="s", code_digest="c")


@pytest.fixture
def planned(tmp_path):
    """Writes the meanings of modules as planning does, beside the specs; returns the path of a spec."""

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


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution `mine` in a version, with the metadata that pip writes."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(number: str | None) -> None:
        for old in tmp_path.glob("mine-*"):
            shutil.rmtree(old)
        folder = tmp_path / f"mine-{number}.dist-info"
        folder.mkdir()
        line = f"Version: {number}\n" if number else ""
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mine\n{line}")

    return installed


@pytest.mark.parametrize("pinned", ["2.13", "2.13.0", "2.13.0+cpu", "2.13.0+cu126", "v2.13.0.0"])
@pytest.mark.parametrize("number", ["2.13", "2.13.0", "2.13.0+cpu"])
def test_builds_and_spellings_of_a_version_are_that_version(install, tmp_path, pinned, number):
    install(number)
    (tmp_path / "constraints.txt").write_text(f"mine=={pinned}\n")
    pins = Pins.read(tmp_path / "constraints.txt").of(["mine"])
    require_pins(pins)
    require_pins({"mine": pinned})
    # They enter digests in one spelling.
    assert pins == {"mine": "2.13.0"}


@pytest.mark.parametrize(
    "number", ["2.13.1", "2.13.0.post1", "2.13.0rc1", "1!2.13", "2!2.13", "2.1.3", "odd", None]
)
def test_other_versions_are_other_versions(install, tmp_path, number):
    install(number)
    with pytest.raises(
        UserError, match=rf"pins mine==2\.13\.0, but {number or 'none'} is installed; install"
    ):
        require_pins({"mine": "2.13.0"})
    if number not in (None, "odd"):
        (tmp_path / "constraints.txt").write_text(f"mine=={number}\n")
        assert Pins.read(tmp_path / "constraints.txt").of(["mine"]) != {"mine": "2.13.0"}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b"mine==2.*", r":1: 'mine==2\.\*' is not an exact pin \(name==version\); write it as one"),
        (b"mine===2.0", r":1: 'mine===2\.0' is not an exact pin"),
        (b"mine>=2.0", r":1: 'mine>=2\.0' is not an exact pin"),
        (b"mine==2.0,!=2.1", r":1: .* is not an exact pin"),
        (b"\n--extra-index-url https://nowhere", r":2: .* is not an exact pin"),
        (b"mine==2.0\nMine==2.1", r":2: 'mine' is pinned to two versions; remove one"),
        (b"mine==2.0 # caf\xe9", r"constraints\.txt: not UTF-8; save it as UTF-8"),
    ],
)
def test_lines_that_pin_nothing_are_named(tmp_path, lines, complaint):
    (tmp_path / "constraints.txt").write_bytes(lines)
    with pytest.raises(UserError, match=complaint):
        Pins.read(tmp_path / "constraints.txt")


def test_what_is_for_another_python_pins_nothing_here(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text(
        "mine==1.0; python_version < '3'\nmine==2.0; python_version > '3'\nmine==2\n", encoding="utf-8-sig"
    )
    assert Pins.read(path).of(["mine"]) == {"mine": "2.0.0"}
