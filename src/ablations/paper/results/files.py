"""Files that results were computed from."""

from pathlib import Path

from ablations.core.contract import Contract
from ablations.core.files import sha256_file
from ablations.core.record import Digests, Environment


class RecordFile(Contract):
    """A record, a sweep or a grid; all but its path is null where it has not been made."""

    path: str
    """Path, relative to the working directory."""
    sha256: str | None = None
    """SHA-256 of its bytes."""
    digest: str | None = None
    """Digest of all that determines it."""
    device: str | None = None
    """Device that it was measured on."""
    commit: str | None = None
    """Commit of the working tree that measured it; null outside a checkout, too."""
    dirty: bool | None = None
    """Whether tracked files differed from that commit."""
    measured_at: str | None = None
    """Start of its job, UTC, ISO 8601."""


def record_file(path: str, environment: Environment, digests: Digests) -> RecordFile:
    """Describe the file at `path`, whose content says where it was measured and what determines it."""
    return RecordFile(
        path=path,
        sha256=sha256_file(Path(path)),
        digest=digests.job,
        device=environment.device,
        commit=environment.git_commit,
        dirty=environment.git_dirty,
        measured_at=environment.measured_at,
    )
