"""A folder in which the SDTP jobs run through their spec files, on a tiny random model and a local text."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.core.block import Joined, Span, missing, read_series
from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.panel import Entry, Member, Panel, PanelFile
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.sdtp.calibrate import calibrate
from ablations.sdtp.evaluate import evaluate
from ablations.sdtp.evaluation.series import BLOCKS
from ablations.sdtp.saliency import saliency
from ablations.sdtp.sweep import sweep
from ablations.sdtp.train import train_pruners
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.evaluate import PrefillSeries, RetrievalSeries, SeriesTotals, TextSeries
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.specs.sdtp.train import PrunerSpec

COMPUTE = {"dtype": "float32", "threads": 1}
LAYERS = [1, 3]
PRESERVE = {"head": 2, "tail": 4}
WINDOWS = {"prompt_tokens": 48, "continuation_tokens": 8}
PROMPTS = {"tokens": 240, "kinds": ["passkey", "definition"], "depths": [0.2, 0.8]}
ARM = {
    "importance": "learned",
    "layers": LAYERS,
    "keep_ratios": [0.7, 0.7],
    "match": None,
    "preserve": PRESERVE,
    "positions": "original",
    "mask": "hard",
    "propagation": "cascade",
    "selection": "top_k",
    "saliency": None,
    "pipeline": None,
    "prompt_tokens": 48,
    "seed": 0,
    "compute": COMPUTE,
}
SPECS: dict[str, dict[str, Any]] = {
    "model": {"model": {"source": "random", "architecture": "llama", "layers": 5, "description": "tiny"}},
    "text": {"text": {"source": "local", "path": "corpus.jsonl"}},
    "saliency": {
        "layers": LAYERS,
        "target": {"measure": "norm", "loss": "continuation"},
        "documents": 6,
        "heldout_documents": 2,
        "tokens": 64,
        "continuation_tokens": 8,
        "compute": COMPUTE,
    },
    "pruner": {
        "layers": LAYERS,
        "losses": {"lm": 1.0, "mse": 1.0, "ranking": 1.0},
        "keep_ratios": [0.7, 0.7],
        "preserve": PRESERVE,
        "width": 16,
        "epochs": 2,
        "batch": 2,
        "learning_rate": 0.003,
        "temperature": 0.5,
        "seed": 0,
        "compute": COMPUTE,
    },
    "calibration": {
        "selection": "top_p",
        "layers": LAYERS,
        "keep_ratios": [0.7, 0.7],
        "preserve": PRESERVE,
        "documents": 3,
        "tokens": 48,
        "compute": COMPUTE,
    },
    "quality": ARM | WINDOWS | {"measure": "text"},
    "retrieval": ARM | {"measure": "retrieval", "prompts": PROMPTS},
    "prefill": ARM | WINDOWS | {"measure": "prefill", "repeats": 2},
    "sweep": {
        "layers": LAYERS,
        "keep_ratios": [0.7, 1.0],
        "preserve": PRESERVE,
        "tokens": 300,
        "new_tokens": 3,
        "repeats": 2,
        "warmup": 1,
        "compute": COMPUTE,
    },
}
ARTEFACTS = ("model", "text", "pruner", "saliency", "calibration")
JOBS: dict[str, tuple[type, Callable, tuple[str, ...]]] = {
    "model": (PrepareModelSpec, prepare_model, ()),
    "text": (PrepareTextSpec, prepare_text, ()),
    "saliency": (SaliencySpec, saliency, ("model", "text")),
    "pruner": (PrunerSpec, train_pruners, ("model", "saliency")),
    "calibration": (CalibrationSpec, calibrate, ("model", "text", "pruner")),
    "quality": (TextSeries, evaluate, ARTEFACTS),
    "retrieval": (RetrievalSeries, evaluate, ARTEFACTS),
    "prefill": (PrefillSeries, evaluate, ARTEFACTS),
    "sweep": (SweepSpec, sweep, ("model", "text", "pruner")),
}
PANELS = ("pruner", "sweep")
"""Jobs without blocks that run in panels."""
COUNTS = {"quality": 4, "retrieval": 2, "prefill": 2}
"""Items of each series."""
SIZE = 2
"""Most items of a block."""


@dataclass
class Evaluated:
    """The blocks of one pruning configuration, by their measures; None for what was not measured."""

    quality: Joined | None = None
    retrieval: Joined | None = None
    prefill: Joined | None = None

    @property
    def samples(self) -> tuple:
        return self.quality.samples

    @property
    def probes(self) -> tuple:
        return self.retrieval.samples

    @property
    def totals(self) -> SeriesTotals:
        return (self.quality or self.retrieval or self.prefill).blocks[-1].totals

    def mean(self, name: str) -> float:
        """Mean of a number of the text samples."""
        return sum(getattr(sample, name) for sample in self.samples) / len(self.samples)


class Workspace:
    """Writes spec files and runs jobs; makes the artefacts that other jobs need at construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = random.Random(0)
        letters = "etaoin shrdlu "
        lines = [
            json.dumps({"text": f"document {i} " + "".join(words.choices(letters, k=200))}) for i in range(60)
        ]
        (folder / "corpus.jsonl").write_text("\n".join(lines))
        self.run("model")
        self.run("text", text={"source": "local", "path": str(folder / "corpus.jsonl")})
        for job in ("saliency", "pruner"):
            self.run(job)

    def spec_file(
        self, job: str, change: dict, inputs: dict[str, str], digest: str | None = None, module: str = ""
    ) -> Path:
        path = self.folder / "spec" / f"{digest or job}.json"
        path.parent.mkdir(exist_ok=True)
        paths = {name: str(self.folder / inputs.get(name, name) / "manifest.json") for name in JOBS[job][2]}
        content = {
            "digest": digest or job,
            "module": module or f"ablations.{job}",
            "spec": SPECS[job] | change,
            "inputs": paths,
            "spec_digest": "s",
            "code_digest": "c",
        }
        path.write_text(json.dumps(content))
        return path

    def run(self, job: str, out: str | None = None, inputs: dict[str, str] | None = None, **change) -> Path:
        """Run a job that has no blocks; the error of a panel's job is raised."""
        spec_type, work, _ = JOBS[job]
        path = self.folder / (out or job)
        path = path if path.suffix == ".json" else path / "manifest.json"
        run = Run(read_job(self.spec_file(job, change, inputs or {}), spec_type), path, "label")
        if job not in PANELS:
            work(run)
            return path
        path.unlink(missing_ok=True)
        panel = Panel([Member(run)])
        work(panel)
        raise_failures(panel)
        return path

    def member(
        self,
        job: str,
        out: str,
        spans: tuple[Span, ...] | None = None,
        inputs: dict[str, str] | None = None,
        label: str | None = None,
        **change,
    ) -> Member:
        """A series as a job of a panel; without spans it lacks what its folder lacks."""
        folder = self.folder / "block" / out
        if spans is None:
            spans = missing(folder, COUNTS[job], SIZE)
        job_file = read_job(self.spec_file(job, change, inputs or {}, out), JOBS[job][0])
        return Member(Run(job_file, folder, label or out), spans)

    def panel(self, module: str, members: list[Member]) -> Path:
        """The file of a panel of series."""
        entries = tuple(
            Entry(
                digest=member.run.job.digest,
                label=member.label,
                out=str(member.run.out),
                spans=missing(member.run.out, COUNTS["quality"], SIZE),
            )
            for member in members
        )
        path = self.folder / "panel" / "panel.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PanelFile(rule="rule", module=module, entries=entries).model_dump_json())
        return path

    def evaluate(
        self,
        *measures: str,
        name: str = "arm",
        inputs: dict[str, str] | None = None,
        work: Callable[[Panel], None] = evaluate,
        **change,
    ) -> Evaluated:
        """Measure one pruning configuration anew, by default its quality; an error is raised."""
        members = {}
        for measure in measures or ("quality",):
            shutil.rmtree(self.folder / "block" / f"{name}-{measure}", ignore_errors=True)
            # What belongs to another measure is left out.
            own = {key: value for key, value in change.items() if key in JOBS[measure][0].model_fields}
            members[measure] = self.member(measure, f"{name}-{measure}", inputs=inputs, label=name, **own)
        panel = Panel([*members.values()])
        work(panel)
        raise_failures(panel)
        return Evaluated(**{measure: self.blocks(member, measure) for measure, member in members.items()})

    def blocks(self, member: Member, measure: str) -> Joined:
        return read_series(member.run.out, COUNTS[measure], BLOCKS[type(member.spec)])


def raise_failures(panel: Panel) -> None:
    for member in panel.members:
        if member.failure is not None:
            raise UserError(member.failure)
