"""Artefacts: folders whose manifest, written last, names every file with its SHA-256."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from ablations.core.contract import Contract
from ablations.core.errors import UserError
from ablations.core.files import make_readable, sha256_file, write_text
from ablations.core.job import Run
from ablations.core.record import Digests, digests_of, read_contract


class Manifest(Contract):
    """What an artefact folder holds, and what determined it."""

    module: str
    """Module that wrote it."""
    spec: dict[str, JsonValue]
    """Spec it was made from."""
    files: dict[str, str]
    """SHA-256 of each file, by name."""
    facts: dict[str, JsonValue] = Field(default={})
    """What readers learn about it without opening its files."""
    seconds: float
    """Wall-clock duration of the job that made it."""
    digests: Digests
    """What determined it."""


@contextmanager
def new_artefact(run: Run, facts: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well, it becomes the artefact of `run`.

    `run.out` is the path of the manifest; the files lie beside it. The manifest keeps what the block puts
    into `facts`.
    """
    folder = run.out.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        staging = Path(temporary) / folder.name
        staging.mkdir()
        yield staging
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        for path in files:
            make_readable(path)
        manifest = Manifest(
            module=run.job.module,
            spec=run.spec.model_dump(mode="json"),
            files={str(path.relative_to(staging)): sha256_file(path) for path in files},
            facts=facts,
            seconds=run.seconds,
            digests=digests_of(run),
        )
        # The manifest is deleted first and written last: a folder without a manifest is no artefact.
        run.out.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        staging.replace(folder)
        write_text(run.out, manifest.model_dump_json(indent=1) + "\n")


def open_artefact(manifest_path: Path, unread: str = "") -> tuple[Path, Manifest]:
    """Check an artefact's files against its manifest; return its folder and the manifest.

    Args:
        manifest_path: The manifest.
        unread: Pattern of the names of files that the caller does not read; they are not checked.

    Raises:
        UserError: the manifest or a file is missing, or a file's bytes are not those that were written.
    """
    manifest = read_contract(manifest_path, Manifest)
    folder = manifest_path.parent
    for name, expected in manifest.files.items():
        if fnmatch(name, unread):
            continue
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing; delete {manifest_path} and run snakemake again")
        if sha256_file(path) != expected:
            raise UserError(
                f"{path}: its SHA-256 is not the one in {manifest_path.name} (corrupt or edited);"
                f" delete {manifest_path} and run snakemake again"
            )
    return folder, manifest
