"""Planned jobs, the models and texts that both methods use, and the rows of a study."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from platform import python_version
from typing import Any

from pydantic import ValidationError

from ablations.core.block import Span, missing
from ablations.core.contract import Contract
from ablations.core.errors import UserError, first_problem
from ablations.core.files import canonical_json, sha256_text, write_text
from ablations.core.job import JobFile
from ablations.evidence.expectations import Experiment, Method
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec, PythonText
from ablations.specs.userfiles import source_hashes
from ablations.study.config.changes import Resolved
from ablations.study.config.experiment import Ablation
from ablations.study.config.study import StudyConfig
from ablations.study.planning.digests import CodeIndex, Hashes, Pins
from ablations.study.planning.stages import MODEL, SPEC, TEXT, Stage

DIGEST_LENGTH = 16
"""Hexadecimal digits of the digests that name results."""


@dataclass(frozen=True)
class Sources:
    """What determines results besides the configuration: code, pinned versions, files of the user."""

    code: CodeIndex
    pins: Pins
    hashes: Hashes


@contextmanager
def configured_by(key: str, elsewhere: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a block that builds a spec; have what is wrong with the spec named by the configuration's keys.

    Args:
        key: Key of the configuration below which the keys of the spec stand.
        elsewhere: Keys of the spec that stand elsewhere, with what is below them, by their keys in the
            configuration.

    Raises:
        UserError: the spec's fields do not go together.
    """
    try:
        yield
    except ValidationError as error:
        problem_key, message = first_problem(error)
        for own, configured in (elsewhere or {}).items():
            if f"{problem_key}.".startswith(f"{own}."):
                raise UserError(f"{configured}{problem_key[len(own) :]}: {message}") from None
        raise UserError(f"{key}.{problem_key}: {message}" if problem_key else f"{key}: {message}") from None


@dataclass(frozen=True)
class Job:
    """One planned job.

    Attributes:
        stage: Rule and module that run it.
        spec: What it does.
        sources: Code and pins that its digest covers.
        inputs: Jobs whose results it reads, by the name of the input.
        files: Hashes of the user's files that it reads, by the name of the input.
        count: Items of a series that are wanted, which its digest does not cover; None for other jobs.
    """

    stage: Stage
    spec: Contract
    sources: Sources
    inputs: dict[str, "Job"] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    count: int | None = None

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
        # A plain JobFile would write the spec as a Contract, which has no fields.
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
    def series(self) -> dict[str, "Job"]:
        """Jobs of series among the inputs, by the name of the input; a record is joined from them."""
        return {name: job for name, job in self.inputs.items() if job.stage.has_blocks}

    @property
    def spec_path(self) -> Path:
        """Path of the immutable spec file."""
        return Path(SPEC.format(digest=self.digest))

    @property
    def done(self) -> bool:
        """Whether its result is there; of a series, all that is wanted of it."""
        return not self.missing(1) if self.stage.has_blocks else self.path.exists()

    def missing(self, size: int) -> tuple[Span, ...]:
        """Spans of a series that are wanted and not measured, each of at most `size` items."""
        return missing(self.path, self.count or 0, size)

    def write_spec(self) -> None:
        """Write the spec file unless it exists: its name is the digest of its content."""
        if not self.spec_path.exists():
            write_text(self.spec_path, self.file.model_dump_json(indent=1) + "\n")

    def with_inputs(self) -> dict[str, "Job"]:
        """This job and all jobs that it needs, by digest; a job comes after its inputs."""
        needed: dict[str, Job] = {}
        for job in self.inputs.values():
            merge(needed, job.with_inputs())
        return {**needed, self.digest: self}


def merge(jobs: dict[str, Job], more: Mapping[str, Job]) -> None:
    """Add jobs by digest; of a series that both have, the one of which more is wanted stays."""
    for digest, job in more.items():
        known = jobs.setdefault(digest, job)
        if (known.count or 0) < (job.count or 0):
            jobs[digest] = job


class Artefacts:
    """Jobs that prepare models and texts, one for each name in the configuration."""

    def __init__(self, config: StudyConfig, sources: Sources) -> None:
        self._config = config
        self._sources = sources
        self._models: dict[str, Job] = {}
        self._texts: dict[str, Job] = {}

    def model(self, name: str) -> Job:
        """Job of the checkpoint called `name` in the configuration.

        Raises:
            UserError: a file that the source names is missing.
        """
        if name not in self._models:
            self._models[name] = self._model(name)
        return self._models[name]

    def text(self, name: str) -> Job:
        """Job of the text called `name` in the configuration.

        Raises:
            UserError: a file that the source names is missing.
        """
        if name not in self._texts:
            self._texts[name] = self._text(name)
        return self._texts[name]

    def _model(self, name: str) -> Job:
        source = self._config.models[name]
        files = source_hashes(source, f"models.{name}", self._sources.hashes.sha256)
        return Job(MODEL, PrepareModelSpec(model=source), self._sources, files=files)

    def _text(self, name: str) -> Job:
        source = self._config.texts[name]
        if isinstance(source, PythonText) and source.python is None:
            source = source.model_copy(update={"python": python_version()})
        files = source_hashes(source, f"texts.{name}", self._sources.hashes.sha256)
        spec = PrepareTextSpec(text=source, seed=self._config.seed)
        return Job(TEXT, spec, self._sources, files=files)


@dataclass(frozen=True)
class Row:
    """An experiment and the jobs that measure it, one for each seed."""

    experiment: Experiment
    jobs: tuple[Job, ...]


def ablation_row(
    method: Method,
    name: str,
    ablation: Ablation,
    arm: Resolved,
    jobs: tuple[Job, ...],
    budget: dict[str, Any],
) -> Row:
    """The row of one entry of the configuration."""
    experiment = Experiment(
        id=name,
        method=method,
        title=ablation.title,
        section=ablation.section,
        step=ablation.step,
        change=arm.change,
        hypothesis=ablation.hypothesis,
        expect=ablation.expect,
        versus=arm.versus,
        records=tuple(str(job.path) for job in jobs),
        budget=budget,
    )
    return Row(experiment, jobs)
