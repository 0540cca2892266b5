"""JSON schemas of the configuration and of records, exported from the contracts for editors and readers."""

import json
from pathlib import Path

from pydantic import BaseModel

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


def schema_text(name: str) -> str:
    """Text of one exported schema."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[name].model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


def export(folder: Path) -> list[Path]:
    """Write every schema into `folder`; return the files that changed."""
    return [folder / name for name in SCHEMAS if write_text_if_changed(folder / name, schema_text(name))]
