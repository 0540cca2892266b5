"""A series of numbers, for tests of blocks and panels: item k is k, measured by nobody."""

import json
from pathlib import Path

from ablations.core.block import Span, block_path, crash_path
from ablations.core.contract import Contract
from ablations.core.record import Digests, Environment, Outcome, Record, write_record


class NumberSpec(Contract):
    """Spec of the series."""

    name: str = "numbers"


class Number(Contract):
    """An item."""

    value: float


class Count(Contract):
    """Facts of the series at the time a block is written."""

    items: int


NumberBlock = Record[NumberSpec, Number, Count]
DIGESTS = Digests(job="d", spec="s", code="c", inputs={}, pins={})


def environment() -> Environment:
    return Environment(
        measured_at="2026-01-01T00:00:00+00:00",
        seconds=99.0,
        host="h",
        device="d",
        device_type="cpu",
        threads=1,
        dtype="float32",
        platform="p",
        versions={},
        git_commit=None,
        git_dirty=None,
    )


def write_block(folder: Path, span: Span, rows: bool = True, **changes) -> Path:
    """Write the block of `span`; `changes` are of its fields."""
    fields = {
        "label": "A1",
        "module": "m",
        "spec": NumberSpec(),
        "outcome": Outcome(status="ok"),
        "samples": tuple(Number(value=number) for number in range(*span)),
        "totals": Count(items=span[1]),
        "environment": environment(),
        "digests": DIGESTS,
    }
    path = block_path(folder, span)
    bulky = [{"number": number} for number in range(*span)] if rows else None
    write_record(path, NumberBlock(**fields | changes), bulky)
    return path


def write_crash(folder: Path, number: int) -> Path:
    """Write the block of a crash at item `number`."""
    outcome = Outcome(status="crashed", exception="ValueError", message="no", place="f in m")
    path = write_block(folder, (number, number), rows=False, outcome=outcome, samples=(), totals=None)
    return path.rename(crash_path(folder, number))


def write_panel(folder: Path, entries: dict[str, list[Span]], module: str = "m", out: str = "block") -> Path:
    """Write a panel of series, each by its digest with the spans it lacks, and their specs; returns its path.

    A digest is its own label, in capitals.
    """
    for digest in entries:
        spec = {
            "digest": digest,
            "module": module,
            "spec": {"name": digest},
            "spec_digest": "s",
            "code_digest": "c",
        }
        path = folder / "spec" / f"{digest}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(spec))
    listed = [
        {"digest": digest, "label": digest.upper(), "out": str(folder / out / digest), "spans": spans}
        for digest, spans in entries.items()
    ]
    path = folder / "panel" / "p.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"rule": "count", "module": module, "entries": listed}))
    return path
