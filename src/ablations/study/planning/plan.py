"""From a checked configuration to the jobs of a study and the rows of its paper."""

import json
import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import cast

from ablations.core.errors import UserError
from ablations.core.files import sha256_text, write_text, write_text_if_changed
from ablations.evidence.inputs import BenchmarkInput, FamilyPlan, PaperInput
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.study.config.validation import load_study
from ablations.study.planning.digests import CodeIndex, Hashes, Pins
from ablations.study.planning.dynatree import DynatreePlanner, benchmark_arm, distinct_rows
from ablations.study.planning.extension import read_extension
from ablations.study.planning.family import confirmatory_rows, require_predictions
from ablations.study.planning.freshness import due_jobs
from ablations.study.planning.jobs import DIGEST_LENGTH, Artefacts, Job, Row, Sources, configured_by, merge
from ablations.study.planning.panels import PlannedPanel, plan_panels, read_planned
from ablations.study.planning.sdtp import SdtpPlanner
from ablations.study.planning.stages import CODE, CONFIG, JOIN, Stage


class Plan:
    """All jobs of a study, and what its paper is told.

    Args:
        raw: The configuration as Snakemake merged it.
        root: Folder of the Snakefile, where `constraints.txt` lies.

    Raises:
        UserError: whatever is wrong with the configuration, one line that names the key; or a damaged
            `results/extension.json`.
    """

    def __init__(self, raw: dict, root: Path) -> None:
        self.config = load_study(raw)
        # Not sorted: the paper follows the order of the experiments.
        self._raw = json.dumps(raw)
        self.sources = Sources(CodeIndex(), Pins.read(root / "constraints.txt"), Hashes())
        artefacts = Artefacts(self.config, self.sources)
        with configured_by("sdtp"):
            sdtp = SdtpPlanner(self.config, artefacts, self.sources, read_extension())
            pruning = [*sdtp.rows()]
            self.sweeps = sdtp.sweeps()
        with configured_by("dynatree"):
            dynatree = DynatreePlanner(self.config, artefacts, self.sources)
            decoding = [*dynatree.rows()]
            self.benchmark = dynatree.benchmark(decoding)
            self.grids = dynatree.grids()
        self.rows = [*pruning, *decoding]
        self.family = confirmatory_rows(self.rows, self.config.paper.confirmatory)
        require_predictions(self.family)

    @property
    def paper_results(self) -> list[Job]:
        """The jobs whose results the paper reads."""
        measured = (job for row in self.rows for job in row.jobs)
        return [*measured, *self.sweeps, *self.grids.values()]

    @cached_property
    def paper_jobs(self) -> dict[str, Job]:
        """Every job that the paper needs, by digest."""
        jobs: dict[str, Job] = {}
        for job in self.paper_results:
            merge(jobs, job.with_inputs())
        return jobs

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """Every job of the study by digest."""
        jobs = dict(self.paper_jobs)
        if self.benchmark:
            merge(jobs, self.benchmark.with_inputs())
        return jobs

    def jobs_of(self, stage: Stage) -> list[Job]:
        """The jobs of one stage."""
        return [job for job in self.jobs.values() if job.stage is stage]

    @cached_property
    def labels(self) -> dict[str, str]:
        """What people call a job, by digest: the first experiment that needs it, or a part of the paper."""
        labels: dict[str, Job] = {**self.grids}
        labels |= {f"{cast(SweepSpec, job.spec).tokens} tokens": job for job in self.sweeps}
        by_digest = {job.digest: name for name, job in labels.items()}
        for row in reversed(self.rows):
            for job in row.jobs:
                by_digest |= dict.fromkeys(job.with_inputs(), row.experiment.id)
        return by_digest

    def label(self, digest: str) -> str:
        """Id of the first experiment that needs a job; empty for what none needs."""
        return self.labels.get(digest, "")

    def method(self, digest: str) -> str:
        """Method of the experiment of a record."""
        methods = {job.digest: row.experiment.method for row in self.rows for job in row.jobs}
        return {"sdtp": "SDTP", "dynatree": "DynaTree"}[methods[digest]]

    def threads(self, job: Job) -> int:
        """CPU threads that a job's spec asks for, over all its processes."""
        compute = getattr(job.spec, "compute", None)
        return compute.threads * self.ranks(job) if compute and job.stage is not JOIN else 1

    def ranks(self, job: Job) -> int:
        """Processes of a job, each with a device of its own."""
        pipeline = getattr(job.spec, "pipeline", None)
        return pipeline.ranks if pipeline and job.stage is not JOIN else 1

    def asked(self, targets: Collection[str]) -> list[Job]:
        """The jobs whose results a command line asks for; all that the paper reads unless it names no others.

        Args:
            targets: Ids of experiments, paths of results, or other words.
        """
        by_name = {row.experiment.id: list(row.jobs) for row in self.rows}
        by_name |= {str(job.path): [job] for job in self.jobs.values()}
        # A path may be spelt in several ways.
        names = [target if target in by_name else os.path.relpath(target) for target in targets]
        if names and all(name in by_name for name in names):
            return [job for name in names for job in by_name[name]]
        return self.paper_results

    def panels(self, wanted: Collection[Job], damage: Mapping[str, str]) -> tuple[PlannedPanel, ...]:
        """The panels that a run would start.

        Args:
            wanted: Jobs whose results are asked for.
            damage: First damaged file of each damaged artefact, by the digest of the job that makes it.
        """
        settings = self.config.panel
        due = due_jobs(wanted, damage).values()
        return tuple(plan_panels(due, self.labels, settings.documents, settings.experiments))

    def panel(self, digest: str) -> PlannedPanel:
        """A panel that was planned before, from its file.

        Raises:
            UserError: the file is missing or damaged, or the code changed meanwhile.
        """
        return read_planned(digest, self.jobs)

    def row(self, name: str) -> Row:
        """The row of experiment `name`.

        Raises:
            UserError: no such experiment in this study.
        """
        for row in self.rows:
            if row.experiment.id == name:
                return row
        raise UserError(
            f"'{name}' is no experiment of this study; it has {[r.experiment.id for r in self.rows]}"
        )

    @property
    def records(self) -> list[Path]:
        """Paths of all records, each once."""
        return list(dict.fromkeys(job.path for row in self.rows for job in row.jobs))

    def paper_plan(self, code: str, family: FamilyPlan | None = None) -> PaperInput:
        """What the paper is told of this study; rows that do not run are left out of its tables.

        Args:
            code: Digest of the code that reads it.
            family: When the confirmatory family was planned.
        """
        config = self.config
        running = {row.experiment.id for row in self.rows}
        settings = config.paper.model_copy(
            update={
                name: tuple(identifier for identifier in getattr(config.paper, name) if identifier in running)
                for name in ("main", "forward", "backward")
            }
        )
        named = {name: source.description or name for name, source in config.models.items()}
        models = {"sdtp": named[config.sdtp.model], "dynatree": named[config.dynatree.target]}
        pruning, decoding = (
            next(
                (
                    next(iter(row.jobs[0].inputs.values()))
                    for row in self.rows
                    if row.experiment.method == method
                ),
                None,
            )
            for method in ("sdtp", "dynatree")
        )
        # What the first row of a method is measured with.
        scorer = pruning.inputs.get("pruner") if pruning else None
        texts = {name: source.description or name for name, source in config.texts.items()}
        return PaperInput(
            study=config.study,
            settings=settings,
            experiments=tuple(row.experiment for row in self.rows),
            models=models,
            sources={
                role: source
                for role, name in (("sdtp", config.sdtp.model), ("dynatree", config.dynatree.target))
                if (source := getattr(config.models[name], "name", None))
            },
            texts={
                "sdtp": texts[config.sdtp.text],
                "saliency": texts[config.sdtp.saliency.text or config.sdtp.text],
                **{kind: texts[prompts.text] for kind, prompts in config.dynatree.prompts.items()},
            },
            manifests={
                role: str(job.inputs["model"].path)
                for role, job in (("sdtp", pruning), ("dynatree", decoding))
                if job is not None
            },
            saliency=str(scorer.inputs["saliency"].path) if scorer else None,
            sweeps=tuple(str(job.path) for job in self.sweeps),
            grids={name: str(job.path) for name, job in self.grids.items()},
            family=family,
            code=code,
        )

    def benchmark_plan(self, code: str) -> BenchmarkInput | None:
        """What the benchmark's table is told of this study; None where it has no benchmark."""
        settings = self.config.dynatree.benchmark
        if settings is None or self.benchmark is None:
            return None
        rows = [row for row in self.rows if row.experiment.method == "dynatree"]
        first = distinct_rows(rows)
        running = {row.experiment.id: benchmark_arm(row)[0] for row in rows}
        # An experiment whose arm is another's stands for that one.
        best_of = [first[running[name]].experiment.id for name in settings.best_of if name in running]
        return BenchmarkInput(
            study=self.config.study,
            record=str(self.benchmark.path),
            arms={name: row.experiment.id for name, row in first.items()},
            titles={row.experiment.id: row.experiment.title for row in first.values()},
            best_of=tuple(best_of),
            alpha=self.config.paper.thresholds.alpha,
            code=code,
        )

    @property
    def config_path(self) -> Path:
        """Where the configuration lies as it was when these jobs were planned."""
        return Path(CONFIG.format(digest=sha256_text(self._raw)[:DIGEST_LENGTH]))

    def write_config(self) -> Path:
        """Write the configuration down for jobs that a scheduler runs; return its path."""
        write_text_if_changed(self.config_path, self._raw)
        return self.config_path

    def write_specs(self) -> None:
        """Write the spec file of every job that has none, and what each code digest stands for."""
        modules = {}
        for job in self.jobs.values():
            job.write_spec()
            modules[job.file.code_digest] = job.stage.module
        for digest, module in modules.items():
            path = Path(CODE.format(digest=digest))
            if not path.exists():
                write_text(path, json.dumps(self.sources.code.parts(module), indent=1) + "\n")
