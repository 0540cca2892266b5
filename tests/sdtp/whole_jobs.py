"""Jobs of a panel without blocks, on the artefacts of a workspace."""

from collections.abc import Sequence
from pathlib import Path

from ablations.core.job import Run, read_job
from ablations.core.panel import Entry, Member, PanelFile
from tests.sdtp.workspace import JOBS, Workspace


def whole_job(
    workspace: Workspace, job: str, name: str, inputs: dict[str, str] | None = None, **change
) -> Member:
    """A job that writes `name`/manifest.json, or a file of one; `name` is its digest and its label, too."""
    spec = read_job(workspace.spec_file(job, change, inputs or {}, name), JOBS[job][0])
    result = "sweep.json" if job == "sweep" else "manifest.json"
    return Member(Run(spec, workspace.folder / name / result, name))


def panel_file(workspace: Workspace, module: str, members: Sequence[Member]) -> Path:
    """Write the file of a panel of jobs; returns its path."""
    entries = tuple(
        Entry(digest=member.run.job.digest, label=member.label, out=str(member.run.out)) for member in members
    )
    path = workspace.folder / "panel" / "whole.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PanelFile(rule="rule", module=module, entries=entries).model_dump_json())
    return path
