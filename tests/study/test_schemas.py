"""Exported schemas stay in step with the contracts that they describe."""

import json
from pathlib import Path

import pytest

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
