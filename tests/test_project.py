"""Pins, environments and continuous integration stay in step with the metadata of the project."""

import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ablations.study.planning.digests import Pins

ROOT = Path(__file__).parents[1]


def test_constraints_pin_every_dependency_within_its_range():
    pins = Pins.read(ROOT / "constraints.txt")
    assert pins.versions["torch"] == "2.13.0"
    for line in requires("ablations"):
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name != "ablations":
            assert requirement.specifier.contains(pins.versions[name]), line


def test_continuous_integration_runs_every_python_that_is_claimed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        line.rpartition(" ")[2]
        for line in project["classifiers"]
        if line.startswith("Programming Language :: Python ::")
    ]
    admitted = [
        f"3.{minor}" for minor in range(40) if f"3.{minor}.1" in SpecifierSet(project["requires-python"])
    ]
    assert named == admitted
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    (setup,) = (
        step["with"] for step in jobs["everything"]["steps"] if "setup-python" in step.get("uses", "")
    )
    assert [setup["python-version"], *jobs["pythons"]["strategy"]["matrix"]["python-version"]] == admitted


@pytest.mark.parametrize("name", ["measure", "paper"])
def test_conda_environments_have_the_same_pins(name):
    pins = Pins.read(ROOT / "constraints.txt")
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    for line in pip:
        requirement = Requirement(line)
        assert str(requirement.specifier) == f"=={pins.versions[canonicalize_name(requirement.name)]}", line
