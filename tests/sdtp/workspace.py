"""A folder in which the SDTP jobs run through their spec files, on a tiny random model and a local text."""

import json
import random
from pathlib import Path

from ablations.core.job import Run, read_job
from ablations.core.record import read_record
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.sdtp.calibrate import calibrate
from ablations.sdtp.evaluate import evaluate
from ablations.sdtp.evaluation.report import SdtpRecord
from ablations.sdtp.reference import reference
from ablations.sdtp.saliency import saliency
from ablations.sdtp.sweep import sweep
from ablations.sdtp.train import train_pruner
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec
from ablations.specs.sdtp.calibrate import CalibrationSpec
from ablations.specs.sdtp.evaluate import EvaluateSpec
from ablations.specs.sdtp.reference import ReferenceSpec
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.specs.sdtp.train import PrunerSpec

COMPUTE = {"dtype": "float32", "threads": 1}
LAYERS = [1, 3]
PRESERVE = {"head": 2, "tail": 4}
WINDOWS = {"documents": 4, "prompt_tokens": 48, "continuation_tokens": 8}
RETRIEVAL = {"tokens": 120, "depths": [0.2, 0.8], "keys": 1}
SPECS = {
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
    "reference": {"windows": WINDOWS, "retrieval": RETRIEVAL, "compute": COMPUTE},
    "evaluate": {
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
        "windows": WINDOWS,
        "retrieval": RETRIEVAL,
        "timing": {"documents": 2, "repeats": 2},
        "seed": 0,
        "compute": COMPUTE,
    },
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
JOBS = {
    "model": (PrepareModelSpec, prepare_model, ()),
    "text": (PrepareTextSpec, prepare_text, ()),
    "saliency": (SaliencySpec, saliency, ("model", "text")),
    "pruner": (PrunerSpec, train_pruner, ("model", "saliency")),
    "calibration": (CalibrationSpec, calibrate, ("model", "text", "pruner")),
    "reference": (ReferenceSpec, reference, ("model", "text")),
    "evaluate": (EvaluateSpec, evaluate, ("model", "text", "reference", "pruner", "saliency", "calibration")),
    "sweep": (SweepSpec, sweep, ("model", "text", "pruner")),
}


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
        for job in ("saliency", "pruner", "reference"):
            self.run(job)

    def spec_file(self, job: str, change: dict, inputs: dict[str, str]) -> Path:
        path = self.folder / f"{job}.spec.json"
        paths = {name: str(self.folder / inputs.get(name, name) / "manifest.json") for name in JOBS[job][2]}
        content = {
            "digest": job,
            "module": f"ablations.{job}",
            "spec": SPECS[job] | change,
            "inputs": paths,
            "spec_digest": "s",
            "code_digest": "c",
        }
        path.write_text(json.dumps(content))
        return path

    def run(self, job: str, out: str | None = None, inputs: dict[str, str] | None = None, **change) -> Path:
        spec_type, work, _ = JOBS[job]
        path = self.folder / (out or job)
        path = path if path.suffix == ".json" else path / "manifest.json"
        work(Run(read_job(self.spec_file(job, change, inputs or {}), spec_type), path, "label"))
        return path

    def evaluate(self, out: str = "record.json", inputs: dict[str, str] | None = None, **change):
        return read_record(self.run("evaluate", out, inputs, **change), SdtpRecord)
