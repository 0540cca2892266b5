"""Exported schemas, pins and environments stay in step with what they describe."""

import json
import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ablations.study.errors import UserError
from ablations.study.planning.pins import Pins
from ablations.study.schemas import SCHEMAS, schema_text

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SCHEMAS)
def test_exported_schemas_are_current(name):
    exported = (ROOT / "workflow/schemas" / name).read_text()
    assert exported == schema_text(name), "run `python -m ablations.study schema` and commit the result"


def test_every_configuration_key_has_a_description_and_unknown_keys_are_refused():
    def check(schema):
        for name, definition in [*schema.get("$defs", {}).items(), ("StudyConfig", schema)]:
            if definition.get("type") != "object":
                continue
            assert definition["additionalProperties"] is False, name
            for key, value in definition.get("properties", {}).items():
                assert value.get("description"), f"{name}.{key} has no description"

    check(json.loads(schema_text("config.schema.json")))


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


def test_a_line_that_is_no_pin_is_named(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text("torch==2.13.0\nnumpy>=1\n")
    with pytest.raises(UserError, match=re.escape(f"{path}:2: 'numpy>=1' is not an exact pin")):
        Pins.read(path)
