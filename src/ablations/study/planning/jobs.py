"""Jobs: specs whose digest names their result."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations.study.contracts.base import Contract
from ablations.study.files import canonical_json, sha256_text, write_text
from ablations.study.job import JobFile
from ablations.study.planning.code import CodeIndex
from ablations.study.planning.hashes import Hashes
from ablations.study.planning.pins import Pins
from ablations.study.planning.stages import SHARD, SPEC, Stage

DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Sources:
    """What besides the configuration determines results: the code, the pinned versions, the users' files."""

    code: CodeIndex
    pins: Pins
    hashes: Hashes


@dataclass(frozen=True)
class Job:
    """One planned job.

    Attributes:
        stage: Which rule and module run it.
        spec: What it is told.
        inputs: The jobs whose results it reads, by the name it knows them by.
        files: SHA-256 of user files it reads, by what they are.
        sources: Code and pins it is digested with.
    """

    stage: Stage
    spec: Contract
    sources: Sources
    inputs: dict[str, "Job"] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @cached_property
    def file(self) -> JobFile:
        """Content of the job's spec file."""
        module = self.stage.module
        spec = self.spec.model_dump(mode="json")
        determined = {
            "module": module,
            "spec_digest": sha256_text(canonical_json(spec))[:DIGEST_LENGTH],
            "code_digest": self.sources.code.digest(module)[:DIGEST_LENGTH],
            "input_digests": {**{name: job.digest for name, job in self.inputs.items()}, **self.files},
            "pins": self.sources.pins.of(self.sources.code.computes_with(module)),
        }
        # A spec is written as what it is, not as the contract that all specs share.
        contract: Any = JobFile[type(self.spec)]  # type: ignore[misc]
        return contract(
            digest=sha256_text(canonical_json(determined))[:DIGEST_LENGTH],
            spec=self.spec,
            inputs={name: str(job.path) for name, job in self.inputs.items()},
            **determined,
        )

    @property
    def digest(self) -> str:
        """Name of the result."""
        return self.file.digest

    @cached_property
    def path(self) -> Path:
        """Path of the result."""
        return self.stage.path(self.digest)

    @property
    def spec_path(self) -> Path:
        """Path of the immutable spec file."""
        return Path(SPEC.format(digest=self.digest))

    def shares(self) -> list[Path]:
        """Results of the jobs that shared this one's work, which a finished result needs no more."""
        return sorted(Path(SHARD).parent.glob(f"{self.digest}.*"))

    def write_spec(self) -> None:
        """Write the spec file if it is missing; one that exists says the same, by its name."""
        if not self.spec_path.exists():
            write_text(self.spec_path, self.file.model_dump_json(indent=1) + "\n")

    def with_inputs(self) -> dict[str, "Job"]:
        """This job and all it needs, by digest, needed ones first."""
        found: dict[str, Job] = {}
        for job in self.inputs.values():
            found |= job.with_inputs()
        return {**found, self.digest: self}
