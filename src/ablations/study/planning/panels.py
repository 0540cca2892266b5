"""Panels of a study: which jobs that lack something share a process, and the files that say so."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablations.core.errors import UserError
from ablations.core.files import canonical_json, sha256_text, write_text
from ablations.core.panel import Entry, PanelFile, read_panel
from ablations.study.planning.jobs import DIGEST_LENGTH, Job
from ablations.study.planning.stages import PANEL, STAGES, Stage

MOST_NAMED = 12
"""Experiments that a message names; further ones are counted."""


@dataclass(frozen=True)
class PlannedPanel:
    """A process that does what several jobs of a stage lack.

    Attributes:
        stage: Their stage.
        file: What is lacking of each.
        jobs: The jobs, in the order of the file.
    """

    stage: Stage
    file: PanelFile
    jobs: tuple[Job, ...]

    @cached_property
    def digest(self) -> str:
        """Name of the panel: a digest of its file."""
        return sha256_text(canonical_json(self.file.model_dump(mode="json")))[:DIGEST_LENGTH]

    @property
    def path(self) -> Path:
        """Path of its file."""
        return Path(PANEL.format(panel=self.digest))

    @property
    def receipt(self) -> Path:
        """Path of the receipt that its rule makes."""
        return Path(self.stage.output.format(panel=self.digest))

    @property
    def what(self) -> str:
        """What it does, for people: blocks, or jobs, and of which experiments."""
        counts: dict[str, int] = {}
        for entry in self.file.entries:
            counts[entry.label] = counts.get(entry.label, 0) + max(1, len(entry.spans))
        blocks = any(entry.spans for entry in self.file.entries)
        names = [f"{label} ({count})" if blocks else label for label, count in counts.items()]
        more = len(names) - MOST_NAMED
        text = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        if not blocks:
            return text
        total = sum(counts.values())
        return f"{total} block{'s' * (total > 1)} side by side: {text}"

    def write(self) -> None:
        """Write its file. Its receipt is deleted: what a panel does is missing."""
        self.receipt.unlink(missing_ok=True)
        if not self.path.exists():
            write_text(self.path, self.file.model_dump_json(indent=1) + "\n")


def plan_panels(
    due: Iterable[Job], labels: Mapping[str, str], documents: int, experiments: int | None
) -> Iterator[PlannedPanel]:
    """The panels of jobs that lack something.

    Jobs share a process if they have the same model and compute alike.

    Args:
        due: Jobs of any stage.
        labels: What people call each job, by digest; jobs of one label stay together.
        documents: Most items of a block.
        experiments: Most labels of a panel; None for all.
    """
    groups: dict[tuple, dict[str, list[Job]]] = {}
    for job in due:
        if job.stage.panel:
            group = groups.setdefault(_alike(job), {})
            group.setdefault(labels.get(job.digest, job.digest), []).append(job)
    order = [stage.rule for stage in STAGES]
    for (rule, *_), by_label in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        names = list(by_label)
        parts = -(-len(names) // (experiments or len(names)))
        for part in range(parts):
            jobs = tuple(job for name in names[part::parts] for job in by_label[name])
            entries = tuple(
                Entry(
                    digest=job.digest,
                    label=labels.get(job.digest, job.digest),
                    out=str(job.stage.made(job.digest)),
                    spans=job.missing(documents) if job.stage.has_blocks else (),
                )
                for job in jobs
            )
            yield PlannedPanel(
                jobs[0].stage, PanelFile(rule=rule, module=jobs[0].stage.module, entries=entries), jobs
            )


def read_planned(digest: str, jobs: Mapping[str, Job]) -> PlannedPanel:
    """A panel that was planned by another process, from its file.

    Args:
        digest: Its name.
        jobs: The jobs of the plan that it belongs to.

    Raises:
        UserError: the file is missing or damaged, or the code or the pinned versions changed meanwhile.
    """
    path = Path(PANEL.format(panel=digest))
    file = read_panel(path)
    gone = [entry.label for entry in file.entries if entry.digest not in jobs]
    if gone:
        raise UserError(
            f"{path}: the code or constraints.txt changed while this panel waited ({gone[0]});"
            " run snakemake again"
        )
    members = tuple(jobs[entry.digest] for entry in file.entries)
    return PlannedPanel(members[0].stage, file, members)


def _alike(job: Job) -> tuple:
    """What the jobs of a process have in common: rule, model, compute and ranks."""
    spec = job.spec.model_dump(mode="json")
    pipeline = spec.get("pipeline")
    ranks = pipeline["ranks"] if pipeline else 1
    return (job.stage.rule, job.inputs["model"].digest, canonical_json(spec["compute"]), ranks)
