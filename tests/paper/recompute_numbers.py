"""Recompute every number that provenance.json lists from its records, and find it in the PDF's text.

Independent of the package on purpose, like `recompute_cells`, whose intervals it shares: numpy and Student's
distribution on the plain JSON of the records. Values must agree to rounding errors, what is printed to the
last digit, ends of bootstrap intervals to a share of the interval's width (the resamples differ).

    python tests/paper/recompute_numbers.py --provenance paper/provenance.json --pdf paper/ablation.pdf
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from recompute_cells import INTERVAL_SLACK, NUMBER, interval, middle
from scipy.stats import t as student

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "G": 1e9, "s": 1}
CHANGES = ("relative_speed", "loss", "median", "p95")
"""Ratios that are printed as what they differ from one by."""


def log_ratio(pairs: Iterable[dict]) -> float:
    return middle(np.log(pair["reference"] / pair["arm"]) for pair in pairs)


def seconds(pairs: Iterable[dict], side: str) -> float:
    return middle(pair[side] for pair in pairs)


class Sources:
    """Records of one number, as plain JSON."""

    def __init__(self, paths: list[str], prefix: str = "") -> None:
        self.records = [json.loads(Path(path).read_text()) for path in paths]
        kind = prefix.split(".")[1:2]
        self.all = [row for record in self.records for row in record.get("samples", ())]
        kinds = {row.get("kind") for row in self.all}
        self.samples = [row for row in self.all if not kind or kind[0] not in kinds or row["kind"] == kind[0]]

    def per_document(self, value: Callable[[dict], float]) -> dict:
        """A value of each document, a mean over seeds."""
        found: dict = {}
        for row in self.samples:
            found.setdefault((row.get("kind"), row["document"]), []).append(value(row))
        return {key: float(np.mean(values)) for key, values in found.items()}

    def quality(self) -> dict:
        return self.per_document(lambda row: row["nll"] - row["reference_nll"])

    def speed(self) -> dict:
        timed = {
            (row.get("kind"), row["document"]): log_ratio(row["pairs"])
            for row in self.samples
            if row["pairs"]
        }
        alone = "drafter" in self.records[0]["spec"] and self.records[0]["spec"]["drafter"] is None
        return dict.fromkeys(timed, 0.0) if alone else timed

    def ranking(self, when: str, measure: str) -> dict:
        found: dict = {}
        for record in self.records:
            for row in record["totals"]["training"][when]:
                found.setdefault(row["document"], []).append(np.mean(row[measure]))
        return {window: float(np.mean(values)) for window, values in found.items()}

    def total(self, name: str) -> float:
        return float(np.mean([record["totals"][name] for record in self.records]))

    def summed(self, name: str) -> float:
        return sum(row[name] for row in self.samples)

    def seconds(self, side: str) -> list[float]:
        return [seconds(row["pairs"], side) for row in self.samples if row["pairs"]]

    def later(self) -> int:
        return sum(row["new_tokens"] - 1 for row in self.samples)


def minus(arm: dict, versus: dict) -> np.ndarray:
    return np.array([arm[key] - versus[key] for key in sorted(arm) if key in versus])


def values(found: dict) -> np.ndarray:
    return np.array(list(found.values()))


def share_of_time(item: Sources, name: str) -> float:
    phases = {phase: item.summed(f"{phase}_seconds") for phase in ("draft", "verify", "bookkeeping")}
    return phases[name] / sum(phases.values())


def seed_sd(item: Sources) -> float:
    means = [np.mean([row["nll"] - row["reference_nll"] for row in one["samples"]]) for one in item.records]
    return float(np.std(means, ddof=1))


def of_ideal(item: Sources) -> np.ndarray:
    return values(item.speed()) + np.log(item.total("prefill_flops") / item.total("reference_prefill_flops"))


def sent_share(item: Sources) -> float:
    sent, unpruned = (
        sum(sum(row[name]) for row in item.samples) for name in ("boundary_bytes", "reference_boundary_bytes")
    )
    return sent / unpruned


def probes(item: Sources, name: str) -> int:
    return sum(probe[name] for record in item.records for probe in record["totals"]["retrieval"])


EXPERIMENT: dict[str, Callable[[Sources], np.ndarray | float]] = {
    "nll": lambda item: float(np.mean([row["nll"] for row in item.samples])),
    "reference_nll": lambda item: float(np.mean([row["reference_nll"] for row in item.samples])),
    "quality": lambda item: values(item.quality()),
    "agreement": lambda item: values(item.per_document(lambda row: row["agreement"])),
    "kl": lambda item: values(item.per_document(lambda row: row["kl"])),
    "seed_sd": seed_sd,
    "speedup": lambda item: values(item.speed()),
    "library_speedup": lambda item: np.array([log_ratio(row["pairs"]) for row in item.samples]),
    "of_ideal": of_ideal,
    "seconds": lambda item: float(np.mean(item.seconds("arm"))),
    "reference_seconds": lambda item: float(np.mean(item.seconds("reference"))),
    "flops": lambda item: item.total("prefill_flops"),
    "flops_share": lambda item: item.total("prefill_flops") / item.total("reference_prefill_flops"),
    "kept": lambda item: float(np.mean([row["living"][-1] for row in item.samples])),
    "kept_share": lambda item: float(
        np.mean([row["living"][-1] / row["prompt_tokens"] for row in item.samples])
    ),
    "kv_bytes": lambda item: item.total("kv_bytes"),
    "kv_share": lambda item: item.total("kv_bytes") / item.total("reference_kv_bytes"),
    "peak_memory_bytes": lambda item: max(one["totals"]["peak_memory_bytes"] for one in item.records),
    "passkeys": lambda item: probes(item, "hit"),
    "reference_passkeys": lambda item: probes(item, "reference_hit"),
    "sent_share": sent_share,
    "spearman": lambda item: values(item.ranking("ranking", "spearman")),
    "spearman_untrained": lambda item: values(item.ranking("ranking_untrained", "spearman")),
    "ndcg": lambda item: values(item.ranking("ranking", "ndcg")),
    "ndcg_untrained": lambda item: values(item.ranking("ranking_untrained", "ndcg")),
    "overlap": lambda item: values(item.ranking("ranking", "overlap")),
    "overlap_untrained": lambda item: values(item.ranking("ranking_untrained", "overlap")),
    "ranking_gain": lambda item: minus(
        item.ranking("ranking", "spearman"), item.ranking("ranking_untrained", "spearman")
    ),
    "throughput": lambda item: item.summed("new_tokens") / sum(item.seconds("arm")),
    "first_seconds": lambda item: float(np.mean(item.seconds("arm_first"))),
    "token_seconds": lambda item: (sum(item.seconds("arm")) - sum(item.seconds("arm_first"))) / item.later(),
    "tokens_per_forward": lambda item: 1 + item.summed("accepted") / max(1, item.summed("target_forwards")),
    "forwards_per_token": lambda item: item.summed("target_forwards") / item.later(),
    "matched": lambda item: item.summed("matched"),
    "repeated_4grams": lambda item: float(np.mean([row["repeated_4grams"] for row in item.samples])),
    "draft_share": lambda item: share_of_time(item, "draft"),
    "verify_share": lambda item: share_of_time(item, "verify"),
    "bookkeeping_share": lambda item: share_of_time(item, "bookkeeping"),
    "nodes_per_round": lambda item: item.summed("drafted") / max(1, item.summed("target_forwards")),
    "accepted_per_node": lambda item: item.summed("accepted") / item.summed("drafted"),
}
VERSUS: dict[str, Callable[[Sources, Sources], np.ndarray]] = {
    "effect": lambda item, other: minus(item.quality(), other.quality()),
    "relative_speed": lambda item, other: minus(item.speed(), other.speed()),
    "contribution": lambda item, other: minus(item.speed(), other.speed()),
    "loss": lambda item, other: minus(item.speed(), other.speed()),
    "ranking_effect": lambda item, other: minus(
        item.ranking("ranking", "spearman"), other.ranking("ranking", "spearman")
    ),
}


def detectable(item: Sources, other: Sources, measure: str, alpha: float) -> float:
    """Smallest mean that a two-sided t test at `alpha` finds with a power of 80 %."""
    arm, versus = (getattr(source, measure)() if source.records else None for source in (item, other))
    data = values(arm) if versus is None else minus(arm, versus)
    quantiles = student.ppf((1 - alpha / 2, 0.8), len(data) - 1)
    return float(quantiles.sum() * data.std(ddof=1) / np.sqrt(len(data)))


def of_depth(item: Sources, name: str) -> float:
    depth = int(re.search(r"\.depth(\d+)\.", name)[1]) - 1
    accepted, tested = (
        sum(row[key][depth] for row in item.samples if depth < len(row[key]))
        for key in ("accepted_per_depth", "tested_per_depth")
    )
    return accepted / tested


def of_boundary(item: Sources, name: str) -> float:
    _, place, measure = name.rsplit(".", 2)
    return float(np.mean([row[measure][int(place)] for row in item.samples]))


def of_sweep(item: Sources, name: str) -> tuple[np.ndarray | float, tuple[float, float] | None]:
    (sweep,), (_, _, ratio) = item.records, name.rsplit(".", 1)[0].split(".", 2)
    (point,) = (point for point in sweep["points"] if f"{point['keep_ratio']:g}" == ratio)
    measure = name.rsplit(".", 1)[1]
    logs = {
        key: np.array([np.log(pair["reference"] / pair["arm"]) for pair in point[field]])
        for key, field in (("speedup", "prefill"), ("end_to_end", "end_to_end"))
    }
    if measure in logs:
        return middle(logs[measure]), (logs[measure].min(), logs[measure].max())
    plain = {
        "seconds": lambda: seconds(point["prefill"], "arm"),
        "reference_seconds": lambda: seconds(point["prefill"], "reference"),
        "ideal": lambda: float(np.log(point["reference_flops"] / point["flops"])),
        "kv_share": lambda: point["kv_bytes"] / point["reference_kv_bytes"],
        "overhead": lambda: point["overhead"],
        "library": lambda: log_ratio(sweep["library"]),
    }
    return plain[measure](), None


def of_noise(item: Sources, measure: str) -> float:
    """Of the ratios of both runs of a reference in a round: the middle one of a document, its size."""
    found = set()
    for row in item.all:
        logs = [np.log(pair["reference"] / pair["again"]) for pair in row["pairs"] if pair["again"]]
        if logs:
            found.add((row["document"], abs(middle(logs))))
    return float(np.percentile([size for _, size in found], {"median": 50, "p95": 95}[measure]))


def of_grid(item: Sources, name: str) -> np.ndarray | float:
    (grid,), (head, measure) = item.records, name.rsplit(".", 1)
    _, method, depth, branching, rest = head.split(".", 4)
    tau, tokens, kind = rest.rsplit(".", 2)
    for point in grid["points"]:
        shape, own = point["tree"]["shape"], point["tree"]["pruning"]["tau"]
        if (shape["method"], str(shape["depth"]), str(shape["branching"])) != (method, depth, branching):
            continue
        if point["tokens"] == int(tokens) and ("none" if own is None else f"{own:g}") == tau:
            rows = [row for row in point["samples"] if kind in ("all", row["kind"]) and row["rounds"]]
            break
    total = {key: sum(row[key] for row in rows) for key in ("accepted", "rounds", "drafted")}
    return {
        "speedup": lambda: np.array([np.log(row["reference_seconds"] / row["seconds"]) for row in rows]),
        "tokens_per_forward": lambda: 1 + total["accepted"] / total["rounds"],
        "nodes_per_round": lambda: total["drafted"] / total["rounds"],
        "new_tokens": lambda: float(np.mean([row["new_tokens"] for row in rows])),
        "repeated_4grams": lambda: float(np.mean([row["repeated_4grams"] for row in rows])),
    }[measure]()


def raw_p(data: np.ndarray) -> float:
    """Two-sided p-value of the paired t test; where t is undefined, the bound of a randomisation test."""
    if not data.any():
        return 1.0
    if len(data) < 2 or np.ptp(data) <= 1e-12 * max(1.0, np.abs(data).max()):
        return 2.0 ** (1 - len(data))
    statistic = data.mean() / (data.std(ddof=1) / np.sqrt(len(data)))
    return float(2 * student.sf(abs(statistic), len(data) - 1))


def printed(number: dict, value: float) -> float:
    """The value on the scale on which it is printed."""
    text = number["text"]
    if number["unit"].startswith("log ratio"):
        value = float(np.exp(value))
        if r"\%" in text:
            return 100 * (value - 1 if number["measure"] in CHANGES else value)
        return value
    if r"\%" in text:
        return 100 * value
    unit = text.rpartition(r"\,")[2] if r"\," in text else ""
    return value / UNITS.get(unit, 1)


def plain(latex: str) -> str:
    """What pdftotext makes of a printed number or interval."""
    text = latex.replace("$", "").replace(r"\times", "\u00d7").replace(r"\%", "%").replace("{>}", ">")
    return re.sub(r"\\,|\s", "", text)


def check(provenance: Path, pdf: str | None) -> tuple[int, int, list[str]]:
    """Numbers that agree, those found in the PDF, and what is wrong."""
    content = json.loads(provenance.read_text())
    problems = [
        problem for path in content["records"] for problem in check_file(path, content["records"][path])
    ]
    squeezed = re.sub(r"\s+", "", pdf.replace("\u2212", "-")) if pdf else ""
    spaced = pdf.replace("\u2212", "-") if pdf else ""
    found = 0
    for number in content["numbers"]:
        name = number["name"]
        if not number["measure"].endswith(".p"):
            problems += check_number(number, content["alpha"])
        if pdf:
            missing = [
                text
                for text in (number["text"], number["interval"])
                if text and not shown(text, spaced, squeezed)
            ]
            problems += [f"{name}: the PDF does not have {text}" for text in missing]
            found += not missing
    problems += check_p_values(content["numbers"], content["alpha"])
    return len(content["numbers"]), found, problems


def shown(latex: str, spaced: str, squeezed: str) -> bool:
    """Whether the PDF's text has a number (as a word of its own) or an interval."""
    text = plain(latex)
    if text.startswith("["):
        return text in squeezed
    parts = re.findall(r"[+-]?[\d.]+|[<>=]|[^\d.<>=+-]+", text)
    word = r"\s*".join(map(re.escape, parts))
    return re.search(rf"(?<![\d.]){word}(?![\d]|\.\d)", spaced) is not None


def check_file(path: str, facts: dict) -> list[str]:
    record = json.loads(Path(path).read_text())
    actual = {
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "digest": record["digests"]["job"],
        "device": record["environment"]["device"],
        "commit": record["environment"]["git_commit"],
        "dirty": record["environment"]["git_dirty"],
        "measured_at": record["environment"]["measured_at"],
    }
    return [
        f"{path}: {key} is {actual[key]}, not {facts[key]}" for key in actual if actual[key] != facts[key]
    ]


def recomputed(number: dict, alpha: float) -> tuple[np.ndarray | float, tuple[float, float] | None]:
    """The number (or its value per document), and its interval where that is not one of documents."""
    name, measure = number["name"], number["measure"].removesuffix(".p")
    item = Sources(number["records"], name)
    if name.startswith("sweep."):
        return of_sweep(item, name)
    if name.startswith(("trees.", "lengths.")):
        return of_grid(item, name), None
    if name.startswith("noise."):
        return of_noise(item, measure), None
    if measure == "acceptance":
        return of_depth(item, name), None
    if measure.endswith("boundary_bytes"):
        return of_boundary(item, name), None
    if measure.startswith("detectable."):
        return detectable(item, Sources(number["versus"]), measure.split(".")[1], alpha), None
    if measure.startswith("against."):
        return minus(item.speed(), Sources(number["versus"]).speed()), None
    if measure in VERSUS:
        return VERSUS[measure](item, Sources(number["versus"])), None
    return EXPERIMENT[measure](item), None


def check_number(number: dict, alpha: float) -> list[str]:
    name = number["name"]
    data, ends = recomputed(number, alpha)
    mean = float(np.mean(data))
    if abs(mean - number["value"]) > 1e-9 * max(1.0, abs(mean)):
        return [f"{name}: {number['value']}, recomputed {mean}"]
    digits = NUMBER.findall(number["text"])[0]
    bound = "{>}" in number["text"]
    step = 10.0 ** -len(digits.partition(".")[2])
    value = printed(number, mean)
    if (value <= float(digits)) if bound else (abs(value - float(digits)) > step / 2 + 1e-9 * abs(value)):
        return [f"{name}: printed as {number['text']}, recomputed {value}"]
    if number["low"] is None:
        return []
    ends = ends or interval(data, alpha)
    slack = 1e-9 if np.size(data) < 20 else INTERVAL_SLACK * (ends[1] - ends[0])
    return [
        f"{name}: end of the interval {given}, recomputed {end}"
        for given, end in zip((number["low"], number["high"]), ends, strict=True)
        if abs(given - end) > slack + 1e-9 * abs(end)
    ]


def check_p_values(numbers: list[dict], alpha: float) -> list[str]:
    """An adjusted p-value lies between the test's own and that times the number of comparisons."""
    problems = []
    for number in numbers:
        if number["measure"].endswith(".p"):
            p = raw_p(np.atleast_1d(recomputed(number, alpha)[0]))
            if not p * (1 - 1e-6) <= number["value"] <= min(1.0, 1e-9 + p * 4 * len(numbers)):
                problems.append(f"{number['name']}: {number['value']}, unadjusted {p}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Recompute every number of provenance.json from its records."
    )
    parser.add_argument("--provenance", type=Path, required=True, help="provenance.json of the paper")
    parser.add_argument("--pdf", type=Path, help="compiled section, in whose text every number must stand")
    arguments = parser.parse_args()
    text = None
    if arguments.pdf:
        command = ["pdftotext", "-layout", str(arguments.pdf), "-"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers, found, problems = check(arguments.provenance, text)
    for problem in problems:
        print(problem, file=sys.stderr)
    shown_in = f", {found} of them found in the PDF" if text else ""
    print(f"{numbers} numbers recomputed{shown_in}, {len(problems)} problems")
    return 1 if problems or not numbers else 0


if __name__ == "__main__":
    sys.exit(main())
