"""Recompute every number and decision that provenance.json lists from its records, and find it in the PDF.

Independent of the package on purpose, like `recompute_decisions`, whose statistics it shares. Values and ends
of intervals must agree to rounding errors, what is printed to the last digit.

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
from recompute_cells import NUMBER, mean_over, nll_effect, ranking, ranking_difference, ranking_mean, shifted
from recompute_decisions import (
    Mean,
    Study,
    corrected,
    decisions,
    later_speeds,
    mean_of,
    middle,
    prices_of,
    speeds,
)

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "G": 1e9, "s": 1}
CHANGES = ("relative_speed", "counted_speed", "decided.speed", "loss", "price_error", "median", "p95")
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
        self.kind = kind[0] if kind and kind[0] in kinds else None
        self.samples = [row for row in self.all if self.kind in (None, row.get("kind"))]
        replays = self.records[0]["totals"].get("replays", ()) if "totals" in self.records[0] else ()
        # What no clock plays a part in is counted on replayed prompts where there are any.
        self.counted = [row for row in replays if self.kind in (None, row["kind"])] or self.samples

    def mean(self, value: Callable[[dict], float]) -> Mean:
        """Mean over documents of a value, a mean over records."""
        found: dict = {}
        for row in self.samples:
            found.setdefault((row.get("kind"), row["document"]), []).append(value(row))
        return mean_over(found)

    def speed(self) -> Mean:
        if prices := self.of_kind(prices_of(self.records[0])):
            return corrected(self.measured(speeds), prices)
        return self.timed_speed()

    def timed_speed(self) -> Mean:
        """Of the timed prompts alone."""
        records = [record | {"samples": self.samples} for record in self.records[:1]]
        return mean_over(speeds(records if len(self.records) == 1 else self.records))

    def later_speed(self) -> Mean:
        """Of what follows the first token."""
        measured = self.measured(later_speeds)
        if prices := self.of_kind(prices_of(self.records[0], later=True)):
            return corrected(measured, prices)
        return mean_of(np.array([*measured.values()]))

    def price_error(self) -> Mean:
        prices, measured = self.of_kind(prices_of(self.records[0])), self.measured(speeds)
        return mean_of(np.array([prices[name] - value for name, value in measured.items()]))

    def measured(self, logs: Callable[[list[dict]], dict[str, list[float]]]) -> dict[str, float]:
        """Log ratios of timed prompts."""
        return self.of_kind({name: value for name, (value,) in logs(self.records).items()})

    def of_kind(self, found: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in found.items() if self.kind in (None, name.partition("/")[0])}

    def probes(self) -> list[dict]:
        return [probe for record in self.records for probe in record["totals"]["retrieval"]]

    def ranking(self, when: str, measure: str) -> Mean:
        return ranking_mean(ranking(self.records, when, measure))

    def total(self, name: str) -> float:
        return float(np.mean([record["totals"][name] for record in self.records]))

    def summed(self, name: str) -> float:
        return sum(row[name] for row in self.samples)

    def count(self, name: str) -> float:
        return sum(row[name] for row in self.counted)

    def seconds(self, side: str) -> list[float]:
        return [seconds(row["pairs"], side) for row in self.samples if row["pairs"]]

    def later(self, samples: list[dict]) -> int:
        return sum(row["new_tokens"] - 1 for row in samples)


def share_of_time(item: Sources, name: str) -> float:
    phases = {phase: item.summed(f"{phase}_seconds") for phase in ("draft", "verify", "bookkeeping")}
    return phases[name] / sum(phases.values())


def kl_seed_sd(item: Sources) -> float:
    means = [np.mean([row["kl"] for row in record["samples"]]) for record in item.records]
    return float(np.std(means, ddof=1))


def of_ideal(item: Sources) -> Mean:
    share = item.total("prefill_flops") / item.total("reference_prefill_flops")
    return shifted(item.speed(), np.log(share))


def answers(item: Sources) -> Mean:
    found: dict = {}
    for probe in item.probes():
        found.setdefault(probe["document"], []).append(probe["nll"])
    return mean_over(found)


def sent_share(item: Sources) -> float:
    sent, unpruned = (
        sum(sum(row[name]) for row in item.samples) for name in ("boundary_bytes", "reference_boundary_bytes")
    )
    return sent / unpruned


def found_of(item: Sources, name: str) -> int:
    """Facts found, of one kind where the name says so."""
    kind, measure = name.split(".")[1:-1], name.rpartition(".")[2]
    key = {"hits": "hit", "reference_hits": "reference_hit"}[measure]
    return sum(probe[key] for probe in item.probes() if not kind or probe["kind"] == kind[0])


EXPERIMENT: dict[str, Callable[[Sources], Mean | float]] = {
    "nll": lambda item: float(np.mean([row["nll"] for row in item.samples])),
    "reference_nll": lambda item: float(np.mean([row["reference_nll"] for row in item.samples])),
    "quality": lambda item: item.mean(lambda row: row["nll"] - row["reference_nll"]),
    "agreement": lambda item: item.mean(lambda row: row["agreement"]),
    "kl": lambda item: item.mean(lambda row: row["kl"]),
    "kl_seed_sd": kl_seed_sd,
    "answer_nll": answers,
    "reference_answer_nll": lambda item: float(np.mean([one["reference_nll"] for one in item.probes()])),
    "speedup": lambda item: item.speed(),
    "measured_speedup": lambda item: item.timed_speed(),
    "rounds_speedup": lambda item: item.later_speed(),
    "price_error": lambda item: item.price_error(),
    "library_speedup": lambda item: item.mean(lambda row: log_ratio(row["pairs"])),
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
    "sent_share": sent_share,
    "spearman": lambda item: item.ranking("ranking", "spearman"),
    "spearman_untrained": lambda item: item.ranking("ranking_untrained", "spearman"),
    "ndcg": lambda item: item.ranking("ranking", "ndcg"),
    "ndcg_untrained": lambda item: item.ranking("ranking_untrained", "ndcg"),
    "overlap": lambda item: item.ranking("ranking", "overlap"),
    "overlap_untrained": lambda item: item.ranking("ranking_untrained", "overlap"),
    "ranking_gain": lambda item: ranking_difference(
        *(ranking(item.records, when, "spearman") for when in ("ranking", "ranking_untrained"))
    ),
    "throughput": lambda item: item.summed("new_tokens") / sum(item.seconds("arm")),
    "first_seconds": lambda item: float(np.mean(item.seconds("arm_first"))),
    "token_seconds": lambda item: (
        (sum(item.seconds("arm")) - sum(item.seconds("arm_first"))) / item.later(item.samples)
    ),
    "tokens_per_forward": lambda item: 1 + item.count("accepted") / max(1, item.count("target_forwards")),
    "forwards_per_token": lambda item: item.count("target_forwards") / item.later(item.counted),
    "matched": lambda item: item.summed("matched"),
    "repeated_4grams": lambda item: float(np.mean([row["repeated_4grams"] for row in item.counted])),
    "draft_share": lambda item: share_of_time(item, "draft"),
    "verify_share": lambda item: share_of_time(item, "verify"),
    "bookkeeping_share": lambda item: share_of_time(item, "bookkeeping"),
    "nodes_per_round": lambda item: item.count("drafted") / max(1, item.count("target_forwards")),
    "accepted_per_node": lambda item: item.count("accepted") / item.count("drafted"),
}
EFFECTS = {
    "text_effect": "text",
    "retrieval_effect": "retrieval",
    "relative_speed": "speed",
    "contribution": "speed",
    "loss": "speed",
}


def of_effect(study: Study, number: dict) -> Mean | float:
    """An effect of one experiment against another."""
    measure = number["measure"]
    name = number["name"].removesuffix(f".{measure}")
    versus = study.experiments[name]["versus"]
    if measure == "effect":
        return nll_effect(study, name)
    if measure == "counted_speed":
        own, other = (Sources(study.experiments[item]["records"]) for item in (name, versus))
        return float(np.log(other.total("prefill_flops") / own.total("prefill_flops")))
    if measure == "loss":
        versus = study.settings["full_method"]
    kind = EFFECTS.get(measure.removesuffix(".these_trainings"), "speed")
    if measure.startswith("against."):
        versus = measure.partition(".")[2].removesuffix(".these_trainings")
    if study.experiments[versus]["records"] != number["versus"]:
        raise ValueError(f"{number['name']}: not against {number['versus']}")
    if measure.endswith(".these_trainings"):
        return mean_of(study.differences(name, versus, kind).mean(axis=1))
    return study.effect(name, versus, kind)


def of_depth(item: Sources, name: str) -> float:
    depth = int(re.search(r"\.depth(\d+)\.", name)[1]) - 1
    accepted, tested = (
        sum(row[key][depth] for row in item.counted if depth < len(row[key]))
        for key in ("accepted_per_depth", "tested_per_depth")
    )
    return accepted / tested


def of_boundary(item: Sources, name: str) -> float:
    _, place, measure = name.rsplit(".", 2)
    return float(np.mean([row[measure][int(place)] for row in item.samples]))


def of_sweep(item: Sources, name: str) -> tuple[float, tuple[float, float] | None]:
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


def of_grid(item: Sources, name: str) -> Mean | float:
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
        "speedup": lambda: mean_of(
            np.array([np.log(row["reference_seconds"] / row["seconds"]) for row in rows])
        ),
        "tokens_per_forward": lambda: 1 + total["accepted"] / total["rounds"],
        "nodes_per_round": lambda: total["drafted"] / total["rounds"],
        "new_tokens": lambda: float(np.mean([row["new_tokens"] for row in rows])),
        "repeated_4grams": lambda: float(np.mean([row["repeated_4grams"] for row in rows])),
    }[measure]()


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
    study = Study(content["plan"])
    read = {key(part): part for part in decisions(study)}
    squeezed = re.sub(r"\s+", "", pdf.replace("\u2212", "-")) if pdf else ""
    spaced = pdf.replace("\u2212", "-") if pdf else ""
    found = 0
    for number in content["numbers"]:
        name = number["name"]
        problems += check_number(number, study, read)
        if pdf:
            missing = [
                text
                for text in (number["text"], number["interval"])
                if text and not shown(text, spaced, squeezed)
            ]
            problems += [f"{name}: the PDF does not have {text}" for text in missing]
            found += not missing
    problems += check_decisions(content["decisions"], read)
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


def key(part: dict) -> tuple:
    return part["experiment"], part["aspect"], part["against"]


def reading_of(
    number: dict, study: Study, read: dict[tuple, dict]
) -> tuple[float, tuple[float, float] | None]:
    """What is told of how a prediction was read."""
    name, _, rest = number["name"].partition(".decided.")
    aspect, _, other = rest.removesuffix(".p").partition(".")
    part = read[name, aspect, other or study.experiments[name]["versus"]]
    if rest.endswith(".p"):
        return part["p_adjusted"], None
    return part["effect"], None if part["low"] is None else (part["low"], part["high"])


def recomputed(
    number: dict, study: Study, read: dict[tuple, dict]
) -> tuple[Mean | float, tuple[float, float] | None]:
    """The number, and its interval where that is not the usual one."""
    name, measure = number["name"], number["measure"]
    if ".decided." in name:
        return reading_of(number, study, read)
    item = Sources(number["records"], name)
    if name.startswith("sweep."):
        return of_sweep(item, name)
    if name.startswith(("trees.", "lengths.")):
        return of_grid(item, name), None
    if name.startswith("noise."):
        return of_noise(item, measure), None
    if measure == "acceptance":
        return of_depth(item, name), None
    if measure in ("hits", "reference_hits"):
        return found_of(item, name), None
    if measure.endswith("boundary_bytes"):
        return of_boundary(item, name), None
    if measure == "ranking_effect":
        pair = (ranking(one.records, "ranking", "spearman") for one in (item, Sources(number["versus"])))
        return ranking_difference(*pair), None
    if measure in EXPERIMENT:
        return EXPERIMENT[measure](item), None
    return of_effect(study, number), None


def check_number(number: dict, study: Study, read: dict[tuple, dict]) -> list[str]:
    name = number["name"]
    found, ends = recomputed(number, study, read)
    mean = found.value if isinstance(found, Mean) else float(found)
    if abs(mean - number["value"]) > 1e-9 * max(1.0, abs(mean)):
        return [f"{name}: {number['value']}, recomputed {mean}"]
    digits = NUMBER.findall(number["text"])[0]
    value, given = printed(number, mean), float(digits)
    step = 10.0 ** -len(digits.partition(".")[2])
    if "{>}" in number["text"]:
        wrong = value <= given
    elif "<" in number["text"]:
        wrong = value >= given
    else:
        wrong = abs(value - given) > step / 2 + 1e-9 * abs(value)
    if wrong:
        return [f"{name}: printed as {number['text']}, recomputed {value}"]
    if number["low"] is None:
        return []
    ends = ends or found.interval(study.alpha)
    return [
        f"{name}: end of the interval {given}, recomputed {end}"
        for given, end in zip((number["low"], number["high"]), ends, strict=True)
        if abs(given - end) > 1e-6 * max(1.0, abs(end))
    ]


def check_decisions(told: list[dict], read: dict[tuple, dict]) -> list[str]:
    """Kind, outcome and reading of every prediction."""
    problems = [f"{key(part)}: not a prediction" for part in told if key(part) not in read]
    problems += [f"{place}: not told" for place in read.keys() - set(map(key, told))]
    for part in told:
        own = read.get(key(part), part)
        for name in ("level", "kind", "outcome", "comparisons", "look"):
            if part[name] != own.get(name):
                problems.append(f"{key(part)}: {name} {part[name]}, recomputed {own.get(name)}")
        for name in ("p", "p_adjusted", "effect", "low", "high"):
            one, other = part[name], own.get(name)
            if (one is None) != (other is None) or (one is not None and abs(one - other) > 1e-6):
                problems.append(f"{key(part)}: {name} {one}, recomputed {other}")
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
