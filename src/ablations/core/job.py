"""Jobs: how each one starts, ``python -m MODULE --spec SPEC.json --out RESULT``, and what it is told."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Generic, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import Field, ValidationError

from ablations.core.contract import Contract
from ablations.core.errors import UserError, one_line, one_line_errors, require_out
from ablations.core.meaning import meaning, module_source

Spec = TypeVar("Spec", bound=Contract)


class JobFile(Contract, Generic[Spec]):
    """All that a job sees of the study: its spec, the paths of its inputs, and what determines its result."""

    digest: str
    """Digest of everything below; the name of the spec file and of the result."""
    module: str
    """Module that runs the job."""
    spec: Spec
    """What to do."""
    inputs: dict[str, str] = Field(default={})
    """Path of each input artefact, relative to the working directory."""
    input_digests: dict[str, str] = Field(default={})
    """Digest of each input artefact."""
    spec_digest: str
    """Digest of the spec."""
    code_digest: str
    """Digest of the meaning of the code in the module's import closure."""
    pins: dict[str, str] = Field(default={})
    """Pinned versions of what the job computes with."""

    def path(self, name: str) -> Path:
        """Path of input artefact `name`.

        Raises:
            UserError: the artefact is not part of this job or was not built yet.
        """
        if name not in self.inputs:
            raise UserError(f"spec {self.digest}: no input named '{name}' (has {sorted(self.inputs)})")
        path = Path(self.inputs[name])
        if not path.exists():
            raise UserError(f"{path}: input '{name}' is missing; let snakemake build it first")
        return path


class Run(Generic[Spec]):
    """One running job: its job file, the path of its result, its label, its own arguments, and its clock."""

    def __init__(
        self,
        job: JobFile[Spec],
        out: Path,
        label: str | None,
        arguments: argparse.Namespace | None = None,
    ) -> None:
        self.job = job
        self.spec: Spec = job.spec
        self.out = out
        self.label = label
        self.arguments = arguments
        self.measured_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the job started."""
        return time.perf_counter() - self._start


def read_job(path: Path, spec_type: type[Spec]) -> JobFile[Spec]:
    """Read a spec file.

    Raises:
        UserError: the file is missing or not a spec of this kind.
    """
    try:
        return JobFile[spec_type].model_validate_json(path.read_bytes())  # type: ignore[valid-type]
    except FileNotFoundError:
        raise UserError(f"{path}: no such spec; `snakemake -n` writes the specs of a study") from None
    except ValidationError as error:
        raise UserError(f"{path}: not a spec of this job: {one_line(error)}") from None


def public_version(text: str) -> str:
    """A version in one spelling: `2.13.0+cpu` (a build), `2.13` and `2.13.0.0` are all `2.13.0`."""
    try:
        parsed = Version(text)
    except InvalidVersion:
        return text
    numbers = [*parsed.release, 0, 0]
    while len(numbers) > 3 and not numbers[-1]:
        numbers.pop()
    epoch, mark, rest = parsed.public.rpartition("!")
    suffix = rest.removeprefix(".".join(map(str, parsed.release)))
    return f"{epoch}{mark}{'.'.join(map(str, numbers))}{suffix}"


def require_pins(pins: dict[str, str]) -> None:
    """Check that the installed versions are those that the job was planned with.

    Args:
        pins: Pinned version of each distribution.

    Raises:
        UserError: a distribution is installed in another version, or not at all.
    """
    for name, pinned in pins.items():
        try:
            # A distribution that was removed halfway has no version.
            installed = version(name) or "none"
        except PackageNotFoundError:
            installed = "none"
        if public_version(installed) != public_version(pinned):
            raise UserError(
                f"constraints.txt pins {name}=={pinned}, but {installed} is installed;"
                " install the pinned version (pip install -c constraints.txt -e .) or change the pin"
            )


def require_code(job: JobFile, spec_path: Path) -> None:
    """Check that the code is what it was when the job was planned: the job's digest stands for that code.

    Planning writes the meaning of each module to `code/DIGEST.json`, beside the folder of specs. A spec that
    was copied elsewhere has no such file, and nothing is checked.

    Raises:
        UserError: a module was edited or deleted.
    """
    planned = spec_path.parent.parent / "code" / f"{job.code_digest}.json"
    if not planned.is_file():
        return
    try:
        meanings = dict(json.loads(planned.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{planned}: damaged (not JSON); delete it and run snakemake again") from None
    for name, expected in meanings.items():
        try:
            same = meaning(module_source(name)) == expected
        except (OSError, SyntaxError, ValueError):
            # ValueError: a damaged note names a module that is no path.
            same = False
        if not same:
            raise UserError(
                f"{name}: edited after this job was planned; run snakemake again, which plans it anew"
            )


def require_inputs(job: JobFile, receipts: Iterable[Path]) -> None:
    """Check that no panel failed to make an input of a job.

    Args:
        job: The job.
        receipts: Receipts of the panels that made its inputs; each says which of its entries failed, and why.

    Raises:
        UserError: an input could not be made.
    """
    for receipt in receipts:
        failed = json.loads(receipt.read_bytes())["failed"]
        for name, digest in job.input_digests.items():
            if digest in failed:
                log = f"logs/{receipt.suffixes[0][1:]}/{receipt.name.partition('.')[0]}.log"
                raise UserError(f"input '{name}' was not made: {failed[digest]} ({log})")


def main(
    module: str,
    spec_type: type[Spec],
    work: Callable[[Run[Spec]], None],
    about: str,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse the command line of a job, run `work`, and turn its errors into one line.

    Args:
        module: Module name, as ``python -m`` takes it.
        spec_type: Contract of the spec.
        work: Does the job and writes `run.out` atomically.
        about: What the job does, for ``--help``.
        add_arguments: Adds the job's own arguments; no result may depend on them.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        epilog=f"example: python -m {module} --spec results/spec/DIGEST.json --out RESULT",
    )
    parser.add_argument("--spec", type=Path, required=True, help="spec file written for the study")
    parser.add_argument("--out", type=Path, required=True, help="result to write, atomically")
    parser.add_argument("--label", help="id of the experiment, kept in its record")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="of the panels that made inputs")
    if add_arguments is not None:
        add_arguments(parser)
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        job = read_job(arguments.spec, spec_type)
        require_pins(job.pins)
        require_code(job, arguments.spec)
        require_inputs(job, arguments.receipts)
        work(Run(job, arguments.out, arguments.label, arguments))
