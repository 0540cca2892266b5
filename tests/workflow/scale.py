"""Time of parsing, planning and collecting a study of 1,000 ablations: ``python -m tests.workflow.scale``."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.paper.design import WHOLE
from tests.paper.synthetic_sdtp import sdtp_record
from tests.workflow.conftest import TINY, clone

PARSE = """
import sys, time
from pathlib import Path
import snakemake.cli, snakemake.workflow
from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi
with SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(
        snakefile=Path("Snakefile"),
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path(path) for path in sys.argv[1:]]),
    )
    start = time.perf_counter()
    workflow.list_rules()
    print(f"SECONDS {time.perf_counter() - start}")
"""
"""Parses the Snakefile, which `list_rules` does first, with Snakemake imported already."""
GIB = 2**30


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.workflow.scale",
        description="Times of a synthetic study: parsing the Snakefile, a dry run, status, collecting.",
    )
    parser.add_argument("--ablations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10, help="records of each ablation that are collected")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = clone(Path(folder, "study")).path
        overlay = study / "scale.yaml"
        overlay.write_text(yaml.safe_dump(synthetic_study(arguments.ablations), sort_keys=False))
        first, again = (_parse(study, overlay) for _ in range(2))
        print(
            f"parsing the Snakefile: {first:.2f} s at first (writes the specs), then {again:.2f} s",
            flush=True,
        )
        dry_run = ["-m", "snakemake", "--dry-run", "--quiet", "--cores", "1"]
        dry_run += ["--configfile", TINY, overlay, "--", "paper/ablation.tex"]
        print(f"dry run, nothing measured: {_timed(study, dry_run):.1f} s", flush=True)
        fill(study)
        print(f"dry run, all measured: {_timed(study, dry_run):.1f} s", flush=True)
        write_checkpoint(study, GIB)
        first, again = (_timed(study, dry_run) for _ in range(2))
        print(f"with a checkpoint of 1 GiB: {first:.1f} s (hashes it), then {again:.1f} s", flush=True)
        status = ["-m", "ablations.study", "status", "--configfile", TINY, overlay]
        print(f"status, all measured: {_timed(study, status):.1f} s", flush=True)
        plan, megabytes = many_records(study, arguments.ablations, arguments.seeds)
        collect = ["-m", "ablations.paper.collect", "--plan", plan, "--out", "results/many.json"]
        seconds = _timed(study, collect)
        print(
            f"collecting {arguments.ablations * arguments.seeds} records ({megabytes:.0f} MB):"
            f" {seconds:.1f} s,"
            f" {_peak(study, collect) / 2**20:.0f} MiB at most",
            flush=True,
        )


def synthetic_study(ablations: int) -> dict:
    """An overlay on the tiny study: half of its ablations set a keep ratio, half a pruning threshold."""
    half = ablations // 2
    sdtp = {
        f"S{index}": {
            "title": f"Keep ratio {index}",
            "section": "ratio",
            "change": {"schedule": {"keep_ratio": round(0.1 + 0.8 * index / half, 6)}},
            "expect": {"quality": "down"},
        }
        for index in range(half)
    }
    decoding = {
        f"T{index}": {
            "title": f"Threshold {index}",
            "section": "thresholds",
            "change": {"pruning": {"tau": round(0.001 + 0.9 * index / half, 6)}},
            "versus": "F4",
        }
        for index in range(ablations - half)
    }
    return {
        "study": "scale",
        "sdtp": {"ablations": sdtp, "only": ["A7", *sdtp]},
        "dynatree": {"ablations": decoding, "benchmark": None},
        "paper": {"confirmatory": {"sdtp": ["A7"]}},
    }


def fill(study: Path) -> None:
    """A stand-in for every record, with all that dry runs and `status` read."""
    template = json.loads(sdtp_record("baseline", 20, WHOLE["baseline"]).model_dump_json())
    plan = json.loads((study / "results/stamp/collect.json").read_text())
    missing = {path: experiment["id"] for experiment in plan["experiments"] for path in experiment["records"]}
    missing |= dict.fromkeys((*plan["sweeps"], *plan["grids"].values()))
    for path, label in missing.items():
        record = template | {"label": label, "digests": template["digests"] | {"job": Path(path).stem}}
        (study / path).parent.mkdir(parents=True, exist_ok=True)
        (study / path).write_text(json.dumps(record, indent=1))


def write_checkpoint(study: Path, size: int) -> None:
    """A stand-in for the prepared model of the study, of `size` bytes."""
    manifest = study / json.loads((study / "results/stamp/collect.json").read_text())["manifests"]["sdtp"]
    manifest.parent.mkdir(parents=True)
    with (manifest.parent / "model.safetensors").open("w+b") as weights:
        weights.truncate(size)
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    manifest.write_text(json.dumps({"files": {"model.safetensors": digest}}))


def many_records(study: Path, ablations: int, seeds: int) -> tuple[Path, float]:
    """A plan of SDTP experiments with records for every seed; its path, and the megabytes of its records."""
    texts = [
        [sdtp_record(name, 20, WHOLE[name], seed).model_dump_json(indent=1) for seed in range(seeds)]
        for name in ("baseline", "A7")
    ]
    folder = study / "results/many"
    folder.mkdir()
    experiments, size = [], 0
    for index in range(ablations):
        name = "baseline" if index == 0 else f"S{index}"
        paths = []
        for seed in range(seeds):
            path = folder / f"{name}-{seed}.json"
            path.write_text(texts[index > 0][seed])
            size += path.stat().st_size
            paths.append(str(path.relative_to(study)))
        experiments.append(
            {
                "id": name,
                "method": "sdtp",
                "title": name,
                "section": "ratio",
                "change": {"schedule": {"keep_ratio": 0.5}} if index else {},
                "expect": {"quality": "down", "speed": "up"},
                "versus": "baseline" if index else None,
                "records": paths,
                "seeds": list(range(seeds)),
            }
        )
    plan = {"study": "many", "settings": {}, "experiments": experiments, "code": "0"}
    path = study / "plan.json"
    path.write_text(json.dumps(plan | {"models": {}, "texts": {}}))
    return path, size / 1e6


def _parse(study: Path, overlay: Path) -> float:
    """Seconds to parse the Snakefile once Snakemake is imported."""
    output = _run(study, ["-c", PARSE, TINY, overlay]).stdout
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("SECONDS")))


def _timed(study: Path, arguments: list[str | Path]) -> float:
    start = time.perf_counter()
    _run(study, arguments)
    return time.perf_counter() - start


def _peak(study: Path, arguments: list[str | Path]) -> int:
    """Peak resident set of a run, bytes."""
    process = subprocess.Popen(
        _command(arguments), cwd=study, env=_environment(study), stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss * 1024


def _run(study: Path, arguments: list[str | Path]) -> subprocess.CompletedProcess:
    completed = subprocess.run(
        _command(arguments), cwd=study, env=_environment(study), capture_output=True, text=True, check=False
    )
    if completed.returncode:
        sys.exit(completed.stdout[-2000:] + completed.stderr[-2000:])
    return completed


def _command(arguments: list[str | Path]) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def _environment(study: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(study / "src")}


if __name__ == "__main__":
    main()
