"""From the messages of Snakemake's jobs to names that say which job of the tiny study is meant."""

import json
import re
from pathlib import Path
from typing import Any

_RENDERING = {
    "Collecting the records into results/summary.json": "collect",
    "Writing tables": "tables",
    "Drawing figures": "figures",
    "Writing numbers and where each comes from": "numbers",
    "Writing paper/ablation.tex": "section",
    "Writing paper/results.html": "page",
    "Packing records, specs and digests into results/archive.tar.gz": "archive",
    "Summing the decoding benchmark up in results/benchmark/decoding.md": "benchmark table",
    "Decoding in every way, side by side": "benchmark",
}
_EXPERIMENT = re.compile(r"(Evaluating|Decoding with) (\w+) \((SDTP|SDTP over several ranks|DynaTree)\)")
_BY_DIGEST = re.compile(r"^(.+?) (?:results/written/)?([0-9a-f]{16})(?:\.jsonl)?$")


def job_name(folder: Path, message: str) -> str:
    """Name of the job that says `message`; those named by a digest are told apart by their specs.

    Raises:
        ValueError: no rule of the workflow says this.
    """
    if message in _RENDERING:
        return _RENDERING[message]
    if found := _EXPERIMENT.fullmatch(message):
        kind = {"SDTP": "evaluate", "DynaTree": "decode"}.get(found[3], "pipeline")
        return f"{kind} {found[2]}"
    found = _BY_DIGEST.match(message)
    if found is None or found[1] not in _TOLD_APART:
        raise ValueError(f"what job says '{message}'?")
    kind, told = _TOLD_APART[found[1]]
    spec = json.loads((folder / f"results/spec/{found[2]}.json").read_text())["spec"]
    return f"{kind} {told(spec)}".strip()


def _source(spec: dict[str, Any]) -> str:
    text = spec["text"]
    return {"python": "python", "wheel": "humaneval"}.get(text["source"]) or Path(text["path"]).stem


def _pruner(spec: dict[str, Any]) -> str:
    losses = "/".join(f"{spec['losses'][name]:g}" for name in ("lm", "mse", "ranking"))
    return losses + (f" seed {spec['seed']}" if spec["seed"] else "")


def _nothing(spec: dict[str, Any]) -> str:
    return ""


_TOLD_APART = {
    "Preparing checkpoint": ("model", lambda spec: str(spec["model"]["hidden_size"])),
    "Preparing text": ("text", _source),
    "Extracting saliency": ("saliency", _nothing),
    "Training pruner": ("pruner", _pruner),
    "Evaluating the unpruned model": ("reference", _nothing),
    "Calibrating selection rule": ("calibration", _nothing),
    "Timing prefill at one prompt length": ("sweep", lambda spec: str(spec["tokens"])),
    "Counting n-grams": ("ngram", _nothing),
    "Letting the target write text to distil a draft from": ("teacher", _nothing),
    "Writing down what the target wrote in": ("written", _nothing),
    "Distilling draft": ("draft", _nothing),
    "Measuring costs of drafting and verifying": (
        "costs",
        lambda spec: f"{spec['shape']['depth']}x{spec['shape']['branching']}",
    ),
    "Replaying a grid of drafts": (
        "grid",
        lambda spec: "lengths" if len(spec["lengths"]) > 1 else "trees",
    ),
}
