"""Decoding jobs run in this process, with inputs made by their own jobs."""

import json
from pathlib import Path

from ablations.core.block import Joined, read_series
from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.panel import Member, Panel
from ablations.core.record import Record
from ablations.dynatree import benchmark, calibrate_costs, calibrate_drafter, calibrate_target, fit_ngram
from ablations.dynatree.decode import decode
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.specs.dynatree.calibrate_costs import CostSpec
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec
from ablations.specs.dynatree.calibrate_target import TargetCostSpec
from ablations.specs.dynatree.decode import DecodeSample, DecodeSeries
from ablations.specs.dynatree.exactness import DecodeTotals
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.lm import PrepareModelSpec, PrepareTextSpec

DecodeBlock = Record[DecodeSeries, DecodeSample, DecodeTotals]
PROMPTS = 2
NEW_TOKENS = 12
CODE = {"kind": "code", "text": "prompts", "split": "heldout", "tokens": 30}
NGRAM = {"kind": "ngram", "context_weight": 16.0}
NEURAL = {"kind": "neural"}
TREE = {"method": "tree", "depth": 4, "branching": 2}
LINEAR = {"method": "linear", "depth": 3, "branching": 1}
PRUNED = {"tau": 0.05, "max_nodes": 256}
WHOLE = {"tau": None, "max_nodes": 256}
CALIBRATED = {"tau": None, "max_nodes": 12}
LOOKUP = {"kind": "prompt_lookup"}
DYNAMIC = {"adaptation": {"kind": "dynamic"}}
HISTORY = {"adaptation": {"kind": "dynamic", "history": {"target": 0.3}}}
COST_AWARE = {"adaptation": {"kind": "cost_aware"}}
VALIDATION = {
    "prompts": [CODE | {"count": PROMPTS}],
    "new_tokens": NEW_TOKENS,
    "compute": {"dtype": "float32", "threads": 1},
}
TARGET_SPEC = {
    "prompts": VALIDATION["prompts"],
    "compute": VALIDATION["compute"],
    "prefixes": [8, 20],
    "most_rows": 13,
    "repeats": 2,
}
ACCEPTANCE_SPEC = VALIDATION | {"drafter": NGRAM, "shape": TREE, "max_nodes": 12}
COST_SPEC = ACCEPTANCE_SPEC


def run_job(folder: Path, name: str, spec_type, work, spec: dict, inputs: dict[str, Path]) -> Path:
    """Run a job in this process from a spec file, as its command line does."""
    out = folder / f"{name}.record.json" if work == benchmark.run else folder / name / "manifest.json"
    work(Run(read_job(write_job(folder, name, spec, inputs, work.__module__), spec_type), out, name))
    return out


def run_member(folder: Path, name: str, spec_type, work, spec: dict, inputs: dict[str, Path]) -> Path:
    """Run a job in a panel of its own.

    Raises:
        UserError: the job failed.
    """
    out = folder / name / "manifest.json"
    path = write_job(folder, name, spec, inputs, work.__module__)
    member: Member = Member(Run(read_job(path, spec_type), out, name))
    work(Panel([member]))
    if member.failure is not None:
        raise UserError(member.failure)
    return out


def write_job(folder: Path, name: str, spec: dict, inputs: dict[str, Path], module: str = "m") -> Path:
    path = folder / f"{name}.spec.json"
    job = {"digest": name, "module": module, "spec": spec, "spec_digest": "s", "code_digest": "c"}
    path.write_text(json.dumps(job | {"inputs": {key: str(value) for key, value in inputs.items()}}))
    return path


def decode_spec(drafter, shape, pruning, **changes) -> dict:
    """Spec of a series of decoded prompts; with `prompts` as a list of sets it is that of a record."""
    return {
        "drafter": drafter,
        "shape": shape,
        "pruning": pruning,
        "reference": "autoregressive" if drafter else "generate",
        "prompts": CODE,
        "new_tokens": NEW_TOKENS,
        "repeats": 2,
        "compute": {"dtype": "float32", "threads": 1},
    } | changes


def series(
    folder: Path, name: str, spec: dict, inputs: dict[str, Path], spans=((0, PROMPTS),)
) -> Member[DecodeSeries]:
    """A series as a member of a panel; it lacks the items of `spans`."""
    job = read_job(write_job(folder, name, spec, inputs, "ablations.dynatree.decode"), DecodeSeries)
    return Member(Run(job, folder / f"{name}.blocks", name), spans)


def blocks(member: Member[DecodeSeries], count: int = PROMPTS) -> Joined[DecodeBlock]:
    """The first items of a series, read from its blocks."""
    return read_series(member.run.out, count, DecodeBlock)


def decoded(
    folder: Path, name: str, spec: dict, inputs: dict[str, Path], count: int = PROMPTS
) -> Joined[DecodeBlock]:
    """The first items of a series, decoded in a panel of its own into one block.

    Raises:
        UserError: the series failed.
    """
    member = series(folder, name, spec, inputs, [(0, count)])
    decode(Panel([member]))
    if member.failure is not None:
        raise UserError(member.failure)
    return blocks(member, count)


def make_inputs(folder: Path) -> dict[str, Path]:
    """Run the jobs for a target, a draft, two texts, n-gram counts and costs; returns their manifests."""
    lines = [
        f"def number_{index}(x):\n    return x + {index} * number_{index - 1}(x)\n" for index in range(40)
    ]
    manifests = {}
    for name, layers in (("model", 3), ("draft", 1)):
        source = {"source": "random", "architecture": "llama", "layers": layers, "description": name}
        manifests[name] = run_job(folder, name, PrepareModelSpec, prepare_model, {"model": source}, {})
    for name, split in (("train", "train"), ("prompts", "heldout")):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        source = {"source": "local", "path": str(file), "split": split}
        manifests[name] = run_job(folder, f"{name}-text", PrepareTextSpec, prepare_text, {"text": source}, {})
    ngram_inputs = {"model": manifests["model"], "text": manifests["train"]}
    manifests["ngram"] = run_job(
        folder, "ngram", NgramSpec, fit_ngram.run, {"order": 3, "texts": ["text"]}, ngram_inputs
    )
    manifests["target"] = run_job(
        folder, "target", TargetCostSpec, calibrate_target.run, TARGET_SPEC, manifests
    )
    manifests["ngram_acceptance"] = run_member(
        folder, "acceptance", AcceptanceSpec, calibrate_drafter.calibrate, ACCEPTANCE_SPEC, manifests
    )
    manifests["costs"] = run_member(folder, "costs", CostSpec, calibrate_costs.measure, COST_SPEC, manifests)
    return manifests
