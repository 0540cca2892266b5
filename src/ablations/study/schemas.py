"""JSON schemas of the configuration and of results, exported for editors and for readers of records."""

import ast
import inspect
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from ablations.core.files import write_text_if_changed
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.specs.dynatree.grid import Grid
from ablations.specs.sdtp.sweep import Sweep
from ablations.study.config.study import StudyConfig

SCHEMAS: dict[str, type[BaseModel]] = {
    "config.schema.json": StudyConfig,
    "sdtp-record.schema.json": SdtpRecord,
    "sdtp-sweep.schema.json": Sweep,
    "dynatree-record.schema.json": DecodeRecord,
    "dynatree-grid.schema.json": Grid,
}


class _Described(GenerateJsonSchema):
    """Schemas with the docstrings of attributes as descriptions.

    pydantic's own `use_attribute_docstrings` reads the source of every contract at import, with which parsing
    the Snakefile takes 1.2 times as long.
    """

    def model_schema(self, schema: Any) -> dict[str, Any]:
        json_schema = super().model_schema(schema)
        for contract in reversed(schema["cls"].__mro__):
            for name, text in _attribute_docstrings(contract).items():
                key = getattr(contract.model_fields.get(name), "alias", None) or name
                if key in json_schema.get("properties", {}):
                    json_schema["properties"][key]["description"] = text
        return json_schema


def schema_text(name: str) -> str:
    """Text of one exported schema."""
    schema = SCHEMAS[name].model_json_schema(schema_generator=_Described)
    return json.dumps({"$schema": _Described.schema_dialect, **schema}, indent=1) + "\n"


def export(folder: Path) -> list[Path]:
    """Write every schema into `folder`; return the files that changed."""
    return [folder / name for name in SCHEMAS if write_text_if_changed(folder / name, schema_text(name))]


def _attribute_docstrings(contract: type) -> dict[str, str]:
    """Docstrings of the attributes declared in the body of a contract's class, by name."""
    if not issubclass(contract, BaseModel):
        return {}
    try:
        (body,) = ast.parse(dedent(inspect.getsource(contract))).body
    except OSError:
        # A generic contract with parameters has no source; its generic class is among the bases.
        return {}
    assert isinstance(body, ast.ClassDef)
    docstrings = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docstrings[name] = inspect.cleandoc(text)
    return docstrings
