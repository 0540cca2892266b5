"""Reading and writing records, checked against their contract both times."""

import json
import os
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, node, python_version, system
from typing import Any, TypeVar

from pydantic import ValidationError

from ablations.study.cli import one_line
from ablations.study.contracts.base import Contract
from ablations.study.contracts.record import Digests, Environment, Record, SideFile
from ablations.study.errors import UserError
from ablations.study.files import atomic_path, canonical_json, sha256_file, sha256_text, write_text
from ablations.study.job import Run
from ablations.study.meaning import SOURCE

Checked = TypeVar("Checked", bound=Contract)
AnyRecord = TypeVar("AnyRecord", bound=Record[Any, Any, Any])
# The last field of a record, as pydantic writes it.
CHECKSUM = '"checksum": ""'


def digests_of(run: Run) -> Digests:
    """The digests that name the result of `run`."""
    job = run.job
    return Digests(
        job=job.digest,
        spec=job.spec_digest,
        code=job.code_digest,
        inputs=job.input_digests,
        pins=job.pins,
    )


def environment_of(run: Run, device: str, device_type: str, threads: int, dtype: str) -> Environment:
    """The environment of `run`, for a job that computed on `device`."""
    commit, dirty = _commit(SOURCE.parent)
    return Environment(
        measured_at=run.measured_at,
        seconds=run.seconds,
        host=sha256_text(node())[:8],
        device=device,
        device_type=device_type,
        threads=threads,
        dtype=dtype,
        platform=f"{system()} {machine()}",
        versions={"python": python_version(), **_versions(run.job.pins)},
        prompt_start=_prompt_start(run),
        git_commit=commit,
        git_dirty=dirty,
    )


def _prompt_start(run: Run) -> str:
    """As the manifest of the job's model says; not every job has one."""
    if "model" not in run.job.inputs:
        return ""
    return json.loads(run.job.path("model").read_bytes())["facts"].get("prompt_start", "")


def write_record(path: Path, record: Record, side_rows: list[dict] | None = None) -> None:
    """Write `record` atomically; `side_rows` go to a file beside it first, named in the record.

    Raises:
        pydantic.ValidationError: the record breaks its contract (a NaN, say); nothing is written.
    """
    side, rows = path.with_suffix(".rows.jsonl"), ""
    if side_rows is not None:
        rows = "".join(canonical_json(row) + "\n" for row in side_rows)
        record = record.model_copy(update={"side": SideFile(file=side.name, sha256=sha256_text(rows))})
    checked = type(record).model_validate(record.model_dump() | {"checksum": ""})
    text = checked.model_dump_json(indent=1) + "\n"
    before, empty, after = text.rpartition(CHECKSUM)
    # The rows appear when the record's own text is safe, and before the record does.
    with atomic_path(path) as temporary:
        temporary.write_text(f'{before}{empty[:-1]}{sha256_text(text)}"{after}', encoding="utf-8")
        if side_rows is not None:
            write_text(side, rows)


def read_record(path: Path, record_type: type[AnyRecord]) -> AnyRecord:
    """Read a record and check it.

    Raises:
        UserError: missing, not JSON, against its contract, or not the bytes that were written.
    """
    record = read_contract(path, record_type)
    if record.checksum:
        text = path.read_text(encoding="utf-8").replace(record.checksum, "")
        if sha256_text(text) != record.checksum:
            raise UserError(f"{path}: edited after it was measured; delete it and run snakemake again")
    return record


def read_rows(path: Path, record: Record) -> list[dict]:
    """Read the bulky rows beside the record at `path`; none where it has no side file.

    Raises:
        UserError: the file is missing, or its bytes are not those that were written.
    """
    if record.side is None:
        return []
    side = path.with_name(record.side.file)
    if not side.is_file() or sha256_file(side) != record.side.sha256:
        raise UserError(f"{side}: missing or edited; delete {path} and run snakemake again")
    return [json.loads(line) for line in side.read_text(encoding="utf-8").splitlines()]


def read_contract(path: Path, contract: type[Checked]) -> Checked:
    """Read any contract from a JSON file and check it.

    Raises:
        UserError: missing, not JSON, or against its contract.
    """
    try:
        return contract.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to build it") from None
    except ValidationError as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); delete it and run snakemake again") from None


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit(checkout: Path) -> tuple[str | None, bool | None]:
    """Commit of a checkout, and whether tracked files differ from it; None twice where it is no checkout."""
    root = _git(checkout, "rev-parse", "--show-toplevel")
    # A repository that only lies around the folder knows nothing of what is in it.
    if root is None or Path(root).resolve() != checkout.resolve():
        return None, None
    status = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return _git(checkout, "rev-parse", "HEAD"), None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook or a shell may name another repository; what it configures stays.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
