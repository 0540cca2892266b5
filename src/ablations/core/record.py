"""The record of one experiment: what ran, what came out, where, and from which inputs."""

import json
import os
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, node, python_version, system
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, ValidationError

from ablations.core.contract import Contract
from ablations.core.errors import UserError, one_line
from ablations.core.files import atomic_path, canonical_json, sha256_file, sha256_text, write_text
from ablations.core.job import Run
from ablations.core.meaning import SOURCE

Spec = TypeVar("Spec", bound=Contract)
Sample = TypeVar("Sample", bound=Contract)
Totals = TypeVar("Totals", bound=Contract)
AnyContract = TypeVar("AnyContract", bound=Contract)
AnyRecord = TypeVar("AnyRecord", bound="Record[Any, Any, Any]")

# A record's last field, empty, as pydantic writes it.
_NO_CHECKSUM = '"checksum": ""'


class Outcome(Contract):
    """How an experiment ended."""

    status: Literal["ok", "crashed"]
    """`crashed`: the computation of the arm itself raised an exception, which is a finding."""
    exception: str | None = None
    """Type of the exception of a crashed arm."""
    message: str | None = None
    """First line of its message."""
    place: str | None = None
    """Function and module in which it was raised."""


class Environment(Contract):
    """Where and with what an experiment was measured."""

    measured_at: str
    """Start of the job, UTC, ISO 8601."""
    seconds: float
    """Wall-clock duration of the job."""
    host: str
    """Hash of the host's name, which tells machines apart without naming them."""
    device: str
    """Name of the device, as `torch` or the operating system tells it."""
    device_type: Literal["cpu", "cuda"]
    """Kind of device."""
    threads: int
    """CPU threads of the job."""
    dtype: str
    """Data type of weights and activations."""
    platform: str
    """Operating system and processor architecture."""
    versions: dict[str, str]
    """Installed versions of what the job computes with, Python included."""
    prompt_start: str = ""
    """Text that the model's tokenizer puts before every text, its BOS token. Windows, retrieval prompts and
    prompts without a chat template begin with it. Empty where the tokenizer adds none."""
    git_commit: str | None
    """Commit of the checkout that holds the code; null where the code is in none (an unpacked archive)."""
    git_dirty: bool | None
    """Whether tracked files differed from that commit."""


class Digests(Contract):
    """What determines a result."""

    job: str
    """Digest of everything below; the record's file name."""
    spec: str
    """Digest of the spec."""
    code: str
    """Digest of the meaning of the code in the job's import closure."""
    inputs: dict[str, str]
    """Digest of each input artefact."""
    pins: dict[str, str]
    """Pinned versions of what the job computes with."""


class SideFile(Contract):
    """A file beside the record that holds bulky rows (kept indices, emitted ids)."""

    file: str
    """Name, relative to the record."""
    sha256: str
    """SHA-256 of its bytes."""


class Record(Contract, Generic[Spec, Sample, Totals]):
    """One experiment, written once, read by the paper rules."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    label: str | None
    """Id of the experiment when it was measured (ids may be renamed later)."""
    module: str
    """Module that ran."""
    spec: Spec
    """What ran."""
    outcome: Outcome
    """How it ended."""
    samples: tuple[Sample, ...] = Field(default=())
    """One row per document or prompt."""
    totals: Totals | None = None
    """Results of the whole job; null after a crash."""
    side: SideFile | None = None
    """Bulky rows; null when there are none."""
    environment: Environment
    """Where and with what."""
    digests: Digests
    """What determines it."""
    checksum: str = ""
    """SHA-256 of the file with this value left empty. An empty value is not checked."""


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


def write_record(path: Path, record: Record, side_rows: list[dict] | None = None) -> None:
    """Write `record` atomically, and before it `side_rows` to a file beside it, named in the record.

    Raises:
        pydantic.ValidationError: the record breaks its contract (it holds a NaN); nothing is written.
    """
    side, rows = path.with_suffix(".rows.jsonl"), ""
    if side_rows is not None:
        rows = "".join(canonical_json(row) + "\n" for row in side_rows)
        record = record.model_copy(update={"side": SideFile(file=side.name, sha256=sha256_text(rows))})
    validated = type(record).model_validate(record.model_dump() | {"checksum": ""})
    text = validated.model_dump_json(indent=1) + "\n"
    before, no_checksum, after = text.rpartition(_NO_CHECKSUM)
    # The side file appears once the record is written under its temporary name, and before it is renamed.
    with atomic_path(path) as temporary:
        temporary.write_text(f'{before}{no_checksum[:-1]}{sha256_text(text)}"{after}', encoding="utf-8")
        if side_rows is not None:
            write_text(side, rows)


def read_record(path: Path, record_type: type[AnyRecord]) -> AnyRecord:
    """Read a record and check it against its contract and its checksum.

    Raises:
        UserError: the file is missing, is not JSON, breaks its contract, or was edited.
    """
    record = read_contract(path, record_type)
    if record.checksum:
        text = path.read_text(encoding="utf-8").replace(record.checksum, "")
        if sha256_text(text) != record.checksum:
            raise UserError(f"{path}: edited after it was measured; delete it and run snakemake again")
    return record


def read_rows(path: Path, record: Record) -> list[dict]:
    """Read the bulky rows beside the record at `path`; none where the record has no side file.

    Raises:
        UserError: the side file is missing or was edited.
    """
    if record.side is None:
        return []
    side = path.with_name(record.side.file)
    if not side.is_file() or sha256_file(side) != record.side.sha256:
        raise UserError(f"{side}: missing or edited; delete {path} and run snakemake again")
    return [json.loads(line) for line in side.read_text(encoding="utf-8").splitlines()]


def read_contract(path: Path, contract: type[AnyContract]) -> AnyContract:
    """Read a contract from a JSON file and check it.

    Raises:
        UserError: the file is missing, is not JSON, or breaks the contract.
    """
    try:
        return contract.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to build it") from None
    except ValidationError as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); delete it and run snakemake again") from None


def _prompt_start(run: Run) -> str:
    """Text before every prompt, from the manifest of the job's model; empty for a job without a model."""
    if "model" not in run.job.inputs:
        return ""
    return json.loads(run.job.path("model").read_bytes())["facts"].get("prompt_start", "")


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution; those that are not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _commit(checkout: Path) -> tuple[str | None, bool | None]:
    """Commit of a checkout, and whether tracked files differ from it; two None where it is no checkout."""
    root = _git(checkout, "rev-parse", "--show-toplevel")
    # A repository that merely encloses the folder does not track its files.
    if root is None or Path(root).resolve() != checkout.resolve():
        return None, None
    status = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return _git(checkout, "rev-parse", "HEAD"), None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints about `folder`; None where it fails."""
    # GIT_DIR and the like, set by a hook or a shell, name another repository; GIT_CONFIG... are settings.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    try:
        completed = subprocess.run(
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
    return completed.stdout.strip() if completed.returncode == 0 else None
