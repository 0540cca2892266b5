"""The record of one experiment: what ran, what came out, where, and from which inputs."""

from typing import Generic, Literal, TypeVar

from pydantic import Field

from ablations.study.contracts.base import Contract

Spec = TypeVar("Spec", bound=Contract)
Sample = TypeVar("Sample", bound=Contract)
Totals = TypeVar("Totals", bound=Contract)


class Outcome(Contract):
    """How an experiment ended."""

    status: Literal["ok", "crashed"]
    """`crashed`: the arm's own computation raised, which is a finding."""
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
    """Anonymised name of the host (a hash), to tell machines apart."""
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
    """What the model's tokenizer puts before a text, its BOS token: windows, passkey prompts and prompts
    without a chat template begin with it. Empty where it puts nothing there."""
    git_commit: str | None
    """Commit of the checkout that the code is of; null where it is none (an unpacked archive)."""
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
    """Facts of the whole job; null after a crash."""
    side: SideFile | None = None
    """Bulky rows; null when there are none."""
    environment: Environment
    """Where and with what."""
    digests: Digests
    """What determines it."""
    checksum: str = ""
    """SHA-256 of the file with this value left empty; empty where nothing is to be checked."""
