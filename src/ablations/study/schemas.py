"""JSON schemas of the configuration and of records, exported from the contracts for editors and readers."""

import ast
import inspect
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from ablations.study.config.study import StudyConfig
from ablations.study.contracts.dynatree import DecodeSample, DecodeSpec, DecodeTotals
from ablations.study.contracts.grid import Grid
from ablations.study.contracts.record import Record
from ablations.study.contracts.sdtp import EvaluateSpec, SdtpSample, SdtpTotals, Sweep
from ablations.study.files import write_text_if_changed

SCHEMAS: dict[str, type[BaseModel]] = {
    "config.schema.json": StudyConfig,
    "sdtp-record.schema.json": Record[EvaluateSpec, SdtpSample, SdtpTotals],
    "sdtp-sweep.schema.json": Sweep,
    "dynatree-record.schema.json": Record[DecodeSpec, DecodeSample, DecodeTotals],
    "dynatree-grid.schema.json": Grid,
}


class _Described(GenerateJsonSchema):
    """Schemas with the docstrings of attributes as descriptions.

    pydantic's own `use_attribute_docstrings` reads the source of every contract whenever it is imported, a
    tenth of the time that parsing the Snakefile takes.
    """

    def model_schema(self, schema: Any) -> dict[str, Any]:
        found = super().model_schema(schema)
        for contract in reversed(schema["cls"].__mro__):
            for name, text in _attribute_docstrings(contract).items():
                key = getattr(contract.model_fields.get(name), "alias", None) or name
                if key in found.get("properties", {}):
                    found["properties"][key]["description"] = text
        return found


def schema_text(name: str) -> str:
    """Text of one exported schema."""
    schema = SCHEMAS[name].model_json_schema(schema_generator=_Described)
    return json.dumps({"$schema": _Described.schema_dialect, **schema}, indent=1) + "\n"


def export(folder: Path) -> list[Path]:
    """Write every schema into `folder`; return the files that changed."""
    return [folder / name for name in SCHEMAS if write_text_if_changed(folder / name, schema_text(name))]


def _attribute_docstrings(contract: type) -> dict[str, str]:
    """Docstrings of the attributes that a contract's own class body declares."""
    if not issubclass(contract, BaseModel):
        return {}
    try:
        (body,) = ast.parse(dedent(inspect.getsource(contract))).body
    except OSError:
        # A generic contract with its parameters filled in: the generic one has the source.
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for declared, following in zip(body.body, body.body[1:], strict=False):
        match declared, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found
