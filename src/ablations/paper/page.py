"""Rule `results_page`: one HTML file, without network, to sort, filter and open every experiment."""

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ablations.core.errors import one_line_errors, require_out
from ablations.core.files import write_text
from ablations.core.panel import read_panel
from ablations.core.record import read_contract
from ablations.evidence.decisions import Decision
from ablations.evidence.expectations import Expectation, Experiment
from ablations.evidence.inputs import PaperInput
from ablations.evidence.records import ExperimentRecords, priced_speedup, read_arm, series_of
from ablations.evidence.statistics import log_speedup, tokens_per_forward
from ablations.paper.numbers import all_quantities
from ablations.paper.quantities.quantity import Quantity
from ablations.paper.summary import Row, Summary
from ablations.paper.wording import plain
from ablations.specs.dynatree.counts import DecodingCounts
from ablations.specs.dynatree.decode import DecodeSample
from ablations.specs.dynatree.replay import PricedReplay
from ablations.specs.sdtp.record import SdtpSample

LONGEST_LOG = 20_000
"""Last characters of a log that the page shows."""


def page_data(summary: Summary, plan: PaperInput, logs: Path) -> dict[str, Any]:
    """What the page shows, as JSON: a row per experiment with its numbers, prompts and logs, and the logs.

    Raises:
        UserError: a record, a spec or the file of a panel is damaged.
    """
    quantities: dict[str, list[Quantity]] = {}
    for item in all_quantities(summary):
        quantities.setdefault(item.name.partition(".")[0], []).append(item)
    experiments = {item.id: item for item in plan.experiments}
    found = _logs(plan, logs)
    shown = {path for item in plan.experiments for path in found[item.id]}
    return {
        "study": summary.study,
        "decided": summary.decided,
        "coverage": f"{100 * (1 - summary.settings.thresholds.alpha):g}%",
        "rows": [
            _row(row, experiments[row.id], quantities.get(row.id, []), found[row.id]) for row in summary.rows
        ],
        "logs": {str(path): _text(path) for path in shown},
    }


def _row(
    row: Row, experiment: Experiment, quantities: Iterable[Quantity], logs: Iterable[Path]
) -> dict[str, Any]:
    own = {item.name.partition(".")[2]: item for item in quantities}
    arm = read_arm(experiment)
    return {
        "id": row.id,
        "method": {"sdtp": "SDTP", "dynatree": "decoding"}[row.method],
        "section": row.section,
        "title": row.title,
        "hypothesis": row.hypothesis or "",
        "expected": _expected(row.expect),
        "versus": row.versus or "",
        "status": _words(row.status),
        "outcomes": [
            f"{part.aspect}: {_words(part.outcome)}" for part in row.parts if part.outcome is not None
        ],
        "parts": [_read(part) for part in row.parts],
        "crash": f"{row.outcome.exception}: {row.outcome.message}" if row.status == "crashed" else "",
        "text": _cell(own.get("text_effect")),
        "retrieval": _cell(own.get("retrieval_effect")),
        "speedup": _cell(own.get("speedup")),
        "relative": _cell(own.get("relative_speed") or own.get("contribution")),
        "change": yaml.safe_dump(row.change, sort_keys=False) if row.change else "",
        "differences": [[item.key, _value(item.versus), _value(item.arm)] for item in row.differences],
        "numbers": [
            [item.name, plain(item.text), plain(item.interval or ""), item.unit, item.field]
            for item in own.values()
        ],
        "prompts": _prompts(arm),
        "records": [file.model_dump(mode="json") for file in row.files],
        "logs": [str(path) for path in logs],
    }


def _cell(item: Quantity | None) -> dict[str, Any] | None:
    """What a cell of the matrix shows, and the number by which it sorts."""
    if item is None:
        return None
    return {"value": item.value, "text": plain(item.text), "interval": plain(item.interval or "")}


def _expected(expect: Expectation) -> str:
    parts = [f"{name} {_words(level)}" for name, level in expect if isinstance(level, str)]
    parts += [f"{_words(name)} {', '.join(ids)}" for name, ids in expect if isinstance(ids, tuple) and ids]
    return "; ".join(parts)


def _read(part: Decision) -> str:
    """A prediction, its class, and what came of it."""
    against = part.aspect in ("above", "below", "about", "less_traffic")
    predicted = f"{_words(part.aspect)} {part.against if against else _words(part.level)}"
    if part.kind == "exploratory":
        return f"{predicted}, exploratory"
    return f"{predicted}, {part.kind}: {_words(part.outcome or part.reason or 'not tested')}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(given: Any) -> str:
    return json.dumps(given)


def _prompts(arm: ExperimentRecords) -> dict[str, Any]:
    """Values of each prompt, all seeds: columns and rows."""
    if arm.status != "ok":
        return {"columns": [], "rows": []}
    samples = [sample for record in arm.records for sample in record.samples]
    if arm.experiment.method == "sdtp":
        columns = ["document", "KL", "NLL", "unpruned", "agreement", "prefill speed-up"]
        return {
            "columns": columns,
            "rows": [_pruned(sample) for sample in samples if isinstance(sample, SdtpSample)],
        }
    columns = ["kind", "prompt", "tokens", "speed-up", "priced speed-up"]
    columns += ["tokens per forward", "exact", "repeated 4-grams"]
    timed = {(sample.kind, sample.document): sample for sample in samples if isinstance(sample, DecodeSample)}
    counted = (replay for record in arm.records for replay in getattr(record.totals, "replays", ()))
    # Timed prompts are among the replayed ones.
    return {
        "columns": columns,
        "rows": [
            _decoded(item, timed.get((item.kind, item.document))) for item in [*counted] or timed.values()
        ],
    }


def _pruned(sample: SdtpSample) -> list[str | float | None]:
    speed = round(math.exp(log_speedup(sample.pairs)), 3) if sample.pairs else None
    return [
        sample.document,
        round(sample.kl, 4),
        round(sample.nll, 4),
        round(sample.reference_nll, 4),
        round(sample.agreement, 3),
        speed,
    ]


def _decoded(counts: DecodingCounts, timed: DecodeSample | None) -> list[str | float | None]:
    """A prompt, replayed or timed alone, and what its timed decoding measured."""
    priced = round(math.exp(priced_speedup(counts)), 3) if isinstance(counts, PricedReplay) else None
    return [
        counts.kind,
        counts.document,
        counts.new_tokens,
        round(math.exp(log_speedup(timed.pairs)), 3) if timed else None,
        priced,
        round(tokens_per_forward(counts.accepted, counts.target_forwards), 3),
        ("yes" if timed.matched else "tie" if timed.ties else "no") if timed else None,
        round(counts.repeated_4grams, 3),
    ]


def _logs(plan: PaperInput, logs: Path) -> dict[str, list[Path]]:
    """Logs of what measured each experiment, by its id: of the panels of its series, and of its own jobs."""
    records = {item.id: [Path(path) for path in item.records] for item in plan.experiments}
    of_series: dict[str, list[Path]] = {}
    for folder in {path.parent.parent / "panel" for paths in records.values() for path in paths}:
        for path in sorted(folder.glob("*.json")):
            panel = read_panel(path)
            for entry in panel.entries:
                of_series.setdefault(entry.digest, []).append(logs / panel.rule / f"{path.stem}.log")
    found = {}
    for name, paths in records.items():
        panels = [log for path in paths for series in series_of(path) for log in of_series.get(series, ())]
        own = [log for path in paths for log in sorted(logs.glob(f"*/{path.stem}*.log"))]
        found[name] = [log for log in dict.fromkeys([*panels, *own]) if log.is_file()]
    return found


def _text(log: Path) -> str:
    """End of a log, without what a progress bar wrote over itself."""
    text = log.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    return "\n".join(lines)[-LONGEST_LOG:]


def render_page(data: dict[str, Any], templates: Path) -> str:
    """The page: style, script and data are in it."""
    folder = templates / "page"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    # A record may say what would end the script element.
    text = json.dumps(data, allow_nan=False, sort_keys=True).replace("<", "\\u003c")
    return environment.get_template("results.html.j2").render(
        study=data["study"],
        data=Markup(text),
        style=Markup((folder / "results.css").read_text(encoding="utf-8")),
        script=Markup((folder / "results.js").read_text(encoding="utf-8")),
    )


def main() -> None:
    """Command line of the rule `results_page`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.page",
        description="Write one HTML file that shows every experiment of a study, offline.",
        epilog="example: python -m ablations.paper.page --summary results/summary.json"
        " --plan results/stamp/collect.json --templates paper/templates --out paper/results.html",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    parser.add_argument("--plan", type=Path, required=True, help="stamp of the rule collect")
    parser.add_argument("--templates", type=Path, required=True, help="folder of the templates")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the logs")
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        require_out(arguments.out)
        summary, plan = read_contract(arguments.summary, Summary), read_contract(arguments.plan, PaperInput)
        data = page_data(summary, plan, arguments.logs)
        write_text(arguments.out, render_page(data, arguments.templates))


if __name__ == "__main__":
    main()
