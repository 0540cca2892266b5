"""From the commands of Snakemake's jobs to names that say what of the tiny study they make.

A panel does the work of several jobs: each block that it measures, and each result that it makes, has a name.
"""

import json
import re
from pathlib import Path
from typing import Any

_RENDERING = {
    "paper.collect": "collect",
    "paper.tables": "tables",
    "paper.figures": "figures",
    "paper.numbers": "numbers",
    "paper.section": "section",
    "paper.page": "page",
    "paper.archive": "archive",
    "paper.benchmark": "benchmark table",
    "dynatree.written": "written",
}
"""What there is one of, by the module that makes it."""
_OF_EXPERIMENTS = ("evaluate", "pipeline", "decode", "replay", "join")
"""What is called by the experiment that it belongs to."""
_MEASURES = {"text": "quality", "retrieval": "retrieval", "prefill": "prefill"}


def names(folder: Path, command: str) -> set[str]:
    """Names of what a command makes: of every block and result where it runs a panel.

    Args:
        folder: The study.
        command: Shell command of a job.

    Raises:
        ValueError: no rule of the workflow has this command.
    """
    module = re.search(r"-m ablations\.([\w.]+)", command)
    options = dict(re.findall(r"--(panel|spec|label)[ =](\S+)", command))
    if module is None:
        raise ValueError(f"what makes '{command}'?")
    if "panel" in options:
        panel = json.loads((folder / options["panel"]).read_text())
        return {name for entry in panel["entries"] for name in _entry(folder, entry)}
    if "spec" in options:
        return {made_by(folder, Path(options["spec"]).stem, options.get("label", ""))}
    return {_RENDERING[module[1]]}


def made_by(folder: Path, digest: str, label: str = "") -> str:
    """Name of what the job with a digest makes, or of its series.

    Args:
        folder: The study.
        digest: Name of the job's spec.
        label: Id of the first experiment that needs it.
    """
    job = _job(folder, digest)
    kind, told = _TOLD_APART[job["module"].removeprefix("ablations.")]
    parts = [kind, label if kind in _OF_EXPERIMENTS else "", told(job["spec"])]
    if kind in ("evaluate", "pipeline") and "pruner" in job["inputs"]:
        parts.append(_seed(_job(folder, Path(job["inputs"]["pruner"]).parent.name)["spec"]))
    return " ".join(filter(None, parts))


def _job(folder: Path, digest: str) -> dict[str, Any]:
    return json.loads((folder / f"results/spec/{digest}.json").read_text())


def _entry(folder: Path, entry: dict[str, Any]) -> list[str]:
    """Names of the blocks that a panel measures for one of its jobs, or that of the job's result."""
    if not entry["spans"]:
        return [made_by(folder, entry["digest"])]
    series = made_by(folder, entry["digest"], entry["label"])
    return [f"{series} {first}-{end}" for first, end in entry["spans"]]


def _source(spec: dict[str, Any]) -> str:
    text = spec["text"]
    return {"python": "python", "wheel": "humaneval"}.get(text["source"]) or Path(text["path"]).stem


def _pruner(spec: dict[str, Any]) -> str:
    losses = "/".join(f"{spec['losses'][name]:g}" for name in ("lm", "mse", "ranking"))
    return " ".join(filter(None, (losses, _seed(spec))))


def _seed(spec: dict[str, Any]) -> str:
    """Seed of a training where it is not the first."""
    return f"seed {spec['seed']}" if spec["seed"] else ""


def _drafter(spec: dict[str, Any]) -> str:
    return spec["drafter"]["kind"]


def _prompts(spec: dict[str, Any]) -> str:
    return spec["prompts"]["kind"]


def _measure(spec: dict[str, Any]) -> str:
    return _MEASURES[spec["measure"]]


def _nothing(spec: dict[str, Any]) -> str:
    return ""


_TOLD_APART = {
    "lm.prepare_model": ("model", lambda spec: str(spec["model"]["hidden_size"])),
    "lm.prepare_text": ("text", _source),
    "sdtp.saliency": ("saliency", _nothing),
    "sdtp.train": ("pruner", _pruner),
    "sdtp.calibrate": ("calibration", _nothing),
    "sdtp.evaluate": ("evaluate", _measure),
    "sdtp.evaluate_pipeline": ("pipeline", _measure),
    "sdtp.sweep": ("sweep", lambda spec: str(spec["tokens"])),
    "dynatree.fit_ngram": ("ngram", _nothing),
    "dynatree.distil_teacher": ("teacher", _nothing),
    "dynatree.distil": ("draft", _nothing),
    "dynatree.calibrate_target": ("target_costs", _nothing),
    "dynatree.calibrate_drafter": ("acceptance", _drafter),
    "dynatree.calibrate_costs": ("costs", _drafter),
    "dynatree.grid": ("grid", lambda spec: "lengths" if len(spec["lengths"]) > 1 else "trees"),
    "dynatree.decode": ("decode", _prompts),
    "dynatree.replay_arms": ("replay", _prompts),
    "dynatree.benchmark": ("benchmark", _nothing),
    "evidence.join": ("join", _nothing),
}
"""What the jobs of a module are called, and what of its spec tells one from another."""
