"""Recompute every number and outcome in the rendered tables from plan and records.

Independent of the package on purpose: it reads the JSON of plan and records by itself, has statistics of its
own (`recompute_decisions`), and finds a row's records by the comments above the row. What is printed must
agree to the last digit.

    python tests/paper/recompute_cells.py --plan results/stamp/collect.json --tables paper/tables
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from recompute_decisions import (
    MEASURED,
    Mean,
    Study,
    corrected,
    crossed,
    decisions,
    later_speeds,
    mean_of,
    middle,
    prices_of,
    speeds,
)

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
ROW = re.compile(r"^\s*% (\S+): (.+?)(?: sha256 ([0-9a-f]{64})| \(missing\))$")
BREAK = re.compile(r"\\\\\*?$")
"""End of a table's line; the starred break keeps the next line on the page."""
NEW_LINE = r"\\"
CELL = re.compile(r"\\ablationcell\{(.*)\}\{(.*)\}")
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "G": 1e9}
CODES = {
    "as_expected": "yes",
    "smaller": "smaller",
    "smaller_if_any": "smaller if any",
    "opposite": "opposite",
    "no_difference": "none",
    "different": "different",
    "not_resolved": "open",
    None: "---",
}
SIGNS = {"above": "S~$>$", "below": "S~$<$", "about": r"S~$\approx$", "less_traffic": "B~$<$"}
ARROWS = {"same": r"$\approx$", "up": r"$\uparrow$", "down": r"$\downarrow$"}


def per_document(study: Study, name: str, value: Callable[[dict], float]) -> Mean | None:
    """Mean over documents of a value, a mean over records."""
    found: dict[str, list[float]] = {}
    for record in study.records(name):
        for row in record["samples"]:
            found.setdefault(row["document"], []).append(value(row))
    return mean_over(found)


def mean_over(found: dict[str, list[float]]) -> Mean | None:
    return mean_of(np.array([np.mean(values) for values in found.values()])) if found else None


def shifted(mean: Mean | None, by: float) -> Mean | None:
    return None if mean is None else mean._replace(value=mean.value + by)


def ranking(records: list[dict], when: str, measure: str) -> dict[str, dict[int, float]]:
    """Mean over stages of each held-out window and training seed."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        training = record["totals"]["training"]
        for row in training[when]:
            found.setdefault(row["document"], {})[training["pruner"]["seed"]] = float(np.mean(row[measure]))
    return found


def ranking_mean(found: dict[str, dict[int, float]]) -> Mean:
    return mean_of(np.array([np.mean([*values.values()]) for values in found.values()]))


def ranking_difference(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> Mean:
    """Windows crossed with the training seeds that both have."""
    table = [[one[key][seed] - other[key][seed] for seed in one[key] if seed in other[key]] for key in one]
    return crossed(np.array(table))


class Checker:
    """Counts cells that agree and collects those that do not."""

    def __init__(self, alpha: float) -> None:
        self.alpha, self.cells, self.problems = alpha, 0, []

    def point(self, where: str, cell: str, expected: float | None) -> None:
        self.cells += 1
        numbers = NUMBER.findall(cell)
        if expected is None or not numbers:
            if numbers or expected is not None:
                self.problems.append(f"{where}: cell '{cell}', recomputed {expected}")
            return
        decimals = len(numbers[0].partition(".")[2])
        if "{>}" in cell:
            if expected <= float(numbers[0]):
                self.problems.append(f"{where}: cell '{cell}', recomputed {expected:.6g}")
            return
        if abs(float(numbers[0]) - expected) > 0.5 * 10**-decimals + 1e-9:
            self.problems.append(f"{where}: cell {numbers[0]}, recomputed {expected:.6g}")

    def estimate(self, where: str, cell: str, mean: Mean | None, scale, alpha: float | None = None) -> None:
        """A cell with a mean and its interval, both on the scale they are printed on."""
        match = CELL.fullmatch(cell)
        self.point(where, match[1] if match else cell, None if mean is None else scale(mean.value))
        if match is not None and mean is not None:
            self.interval(where, match[2], mean, scale, alpha)

    def interval(self, where: str, cell: str, mean: Mean, scale, alpha: float | None = None) -> None:
        self.cells += 1
        printed, expected = NUMBER.findall(cell), mean.interval(alpha or self.alpha)
        if not printed or expected is None:
            if printed or expected is not None:
                self.problems.append(f"{where}: interval '{cell}', recomputed {expected}")
            return
        for end, recomputed in zip(cell.strip("$[]").split(r",\,"), map(scale, expected), strict=True):
            self.point(where, end, recomputed)

    def same(self, where: str, cell: str, expected: str) -> None:
        self.cells += 1
        if cell != expected:
            self.problems.append(f"{where}: '{cell}', recomputed '{expected}'")

    def quantity(self, where: str, cell: str, expected: float) -> None:
        """A number with a unit."""
        unit = cell.rpartition(",")[2]
        self.point(where, cell, expected / UNITS[unit])


def rows(path: Path) -> list[tuple[str, list[tuple[str, str | None]], list[str]]]:
    """Id, records with their hashes, and cells of each row of a table."""
    found, sources, cells = [], [], []
    for line in path.read_text().splitlines():
        if match := ROW.match(line):
            name = match[1]
            sources.append((match[2], match[3]))
            cells = []
        elif sources:
            cells.append(line)
            # The row ends with the line that ends in a LaTeX line break.
            if line.endswith("\\\\"):
                text = " ".join(cells).removesuffix("\\\\")
                found.append((name, sources, [cell.strip() for cell in re.split(r"(?<!\\)&", text)]))
                sources = []
    return found


def check(plan: Path, tables: Path) -> Checker:
    study = Study(json.loads(plan.read_text()))
    checker = Checker(study.alpha)
    full = study.plan["settings"]["full_method"]
    for table, check_row in CHECKS.items():
        for name, sources, cells in rows(tables / table):
            where = f"{table} {name}"
            if [path for path, _ in sources] != study.experiments[name]["records"]:
                checker.problems.append(f"{where}: names {sources}")
            for path, digest in sources:
                actual = hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None
                if digest != actual:
                    checker.problems.append(f"{where}: its record is not the one that was rendered")
            if table == "decoding_backward.tex":
                _check_decoding(checker, study, where, name, cells, full, 7)
            elif check_row is _check_decoding:
                # The full method stands above rows that are compared with it, without what it is itself.
                alone = name == full and table != "decoding.tex"
                versus = None if alone else study.experiments[name]["versus"]
                _check_decoding(checker, study, where, name, cells, versus, 8)
            elif study.records(name) or table in ("sdtp_matrix.tex", "sdtp_further.tex"):
                check_row(checker, study, where, name, cells)
            elif "crashed" not in cells[2] and "not run" not in cells[2]:
                checker.problems.append(f"{where}: no result, but the row shows {cells[2]}")
    _check_sweep(checker, study, tables / "sweep.tex")
    _check_grid(checker, study, tables / "grid.tex")
    for name, lines in blocks(tables / "decisions.tex").items():
        _check_decisions(checker, study, f"decisions.tex {name}", name, lines)
    for table, check_kind in BY_KIND.items():
        _check_kinds(checker, study, tables / table, check_kind)
    return checker


def _effect(study: Study, name: str, measure: str) -> Mean | None:
    versus = study.experiments[name]["versus"]
    return study.effect(name, versus, measure) if versus else None


def nll_effect(study: Study, name: str) -> Mean | None:
    """By document, a mean over records."""
    added: list[dict[str, float]] = []
    for side in (name, study.experiments[name]["versus"]):
        found: dict[str, list[float]] = {}
        for record in study.records(side) if side in study.experiments else ():
            for row in record["samples"]:
                found.setdefault(row["document"], []).append(row["nll"] - row["reference_nll"])
        added.append({key: float(np.mean(values)) for key, values in found.items()})
    own, other = added
    differences = [own[key] - other[key] for key in own if key in other]
    return mean_of(np.array(differences)) if differences else None


def _mean_total(study: Study, name: str, key: str) -> float | None:
    records = study.records(name)
    return float(np.mean([record["totals"][key] for record in records])) if records else None


def _ideal(study: Study, name: str) -> float:
    return _mean_total(study, name, "reference_prefill_flops") / _mean_total(study, name, "prefill_flops")


def _check_outcomes(checker: Checker, study: Study, where: str, name: str, cell: str) -> None:
    """The codes of an experiment's predictions."""
    parts = [part for part in decided(study) if part["experiment"] == name]
    codes = [f"{_predicted(part)}{': ' if _code(part) else ''}{_code(part)}" for part in parts]
    expected = rf"\ablationoutcomes{{{NEW_LINE.join(codes)}}}" if codes else "---"
    checker.same(f"{where} outcomes", cell, expected)


def _predicted(part: dict) -> str:
    aspect, level = part["aspect"], part["level"]
    if aspect in SIGNS:
        return f"{SIGNS[aspect]}~{part['against']}"
    if aspect in ("exact", "crash"):
        return {"exact": "identical tokens", "crash": "crash"}[aspect]
    arrow = ARROWS[level.removesuffix("_strong")]
    strong = arrow.replace("$", "") if level.endswith("_strong") else ""
    return f"{aspect[0].upper()}~{arrow[:-1]}{strong}$"


def _code(part: dict) -> str:
    code = CODES[part["outcome"]]
    return {"confirmatory": code, "counted": f"({code})", "exploratory": ""}[part["kind"]]


@cache
def decided(study: Study) -> list[dict]:
    return decisions(study)


def _check_matrix(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    _check_outcomes(checker, study, where, name, cells[-1])
    if not study.records(name):
        if "crashed" not in cells[2] and "not run" not in cells[2]:
            checker.problems.append(f"{where}: no result, but the row shows {cells[2]}")
        return
    checker.estimate(f"{where} KL", cells[2], _effect(study, name, "text"), float)
    checker.estimate(f"{where} NLL", cells[3], nll_effect(study, name), float)
    checker.estimate(f"{where} answers", cells[4], _effect(study, name, "retrieval"), float)
    probes = [probe for record in study.records(name) for probe in record["totals"]["retrieval"]]
    hits = f"{sum(probe['hit'] for probe in probes)}/{len(probes)}"
    checker.same(f"{where} hits", cells[5], hits if probes else "---")
    if study.table(name, "speed"):
        checker.estimate(f"{where} prefill", cells[6], _speed(study, name), np.exp)
    else:
        checker.point(f"{where} operations", cells[6], _ideal(study, name))
    checker.point(f"{where} FLOPs", cells[7], 100 / _ideal(study, name))


def _speed(study: Study, name: str) -> Mean | None:
    table = study.table(name, "speed")
    return mean_over(table.rows) if table else None


def _check_effects(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    for column, measure in ((2, "text"), (5, "retrieval")):
        effect, versus = _effect(study, name, measure), study.experiments[name]["versus"]
        checker.estimate(f"{where} {measure}", cells[column], effect, float)
        table = study.differences(name, versus, measure) if effect else None
        if table is not None and table.shape[1] > 1 and cells[column + 1] != "---":
            these = mean_of(table.mean(axis=1))
            checker.interval(f"{where} {measure}, these trainings", cells[column + 1], these, float)
        else:
            checker.same(f"{where} {measure}, these trainings", cells[column + 1], "---")
    checker.estimate(f"{where} NLL", cells[4], nll_effect(study, name), float)


def _check_quality(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    records = study.records(name)
    rows = [row for record in records for row in record["samples"]]
    checker.estimate(f"{where} KL", cells[2], per_document(study, name, lambda row: row["kl"]), float)
    for cell, key in zip(CELL.fullmatch(cells[3]).groups(), ("nll", "reference_nll"), strict=True):
        checker.point(f"{where} {key}", cell, np.mean([row[key] for row in rows]))
    added = per_document(study, name, lambda row: row["nll"] - row["reference_nll"])
    checker.estimate(f"{where} NLL over unpruned", cells[4], added, float)
    agreement = per_document(study, name, lambda row: row["agreement"])
    checker.estimate(f"{where} agreement", cells[5], agreement, lambda share: 100 * share)
    probes = [probe for record in records for probe in record["totals"]["retrieval"]]
    answers: dict[str, list[float]] = {}
    for probe in probes:
        answers.setdefault(probe["document"], []).append(probe["nll"])
    checker.estimate(f"{where} answers", cells[6], mean_over(answers), float)
    reference = np.mean([probe["reference_nll"] for probe in probes]) if probes else None
    checker.point(f"{where} unpruned answers", cells[7], reference)
    hits, ceiling = (sum(probe[key] for probe in probes) for key in ("hit", "reference_hit"))
    kinds = dict.fromkeys(probe["kind"] for probe in probes)
    by_kind = [sum(probe["hit"] for probe in probes if probe["kind"] == kind) for kind in kinds]
    shown = rf"\ablationcell{{{hits}/{len(probes)} ({ceiling})}}{{{', '.join(map(str, by_kind))}}}"
    checker.same(f"{where} hits", cells[8], shown if probes else "---")
    checker.point(f"{where} seeds", cells[9], len(records))
    means = [np.mean([row["kl"] for row in record["samples"]]) for record in records]
    checker.point(f"{where} SD", cells[10], np.std(means, ddof=1) if len(means) > 1 else None)


def _check_cost(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    records, ideal = study.records(name), _ideal(study, name)
    samples = [row for record in records for row in record["samples"]]
    shares = [100 * row["living"][-1] / row["prompt_tokens"] for row in samples]
    kv_bytes = _mean_total(study, name, "kv_bytes")
    kv_share = 100 * kv_bytes / _mean_total(study, name, "reference_kv_bytes")
    peak = max(record["totals"]["peak_memory_bytes"] for record in records)
    operations, tokens, cache_size = (CELL.fullmatch(cell).groups() for cell in cells[2:5])
    checker.quantity(f"{where} operations", operations[0], _mean_total(study, name, "prefill_flops"))
    checker.point(f"{where} FLOPs", operations[1], 100 / ideal)
    checker.point(f"{where} tokens", tokens[0], np.mean([row["living"][-1] for row in samples]))
    checker.point(f"{where} share of tokens", tokens[1], np.mean(shares))
    checker.quantity(f"{where} KV", cache_size[0], kv_bytes)
    checker.point(f"{where} share of KV", cache_size[1], kv_share)
    checker.quantity(f"{where} peak", cells[5], peak)
    timed = [row["pairs"] for row in samples if row["pairs"]]
    for column, side in ((6, "arm"), (7, "reference")):
        seconds = [middle(pair[side] for pair in pairs) for pairs in timed]
        checker.point(f"{where} {side} seconds", cells[column], np.mean(seconds) if seconds else None)
    speed, versus = _effect(study, name, "speed"), study.experiments[name]["versus"]
    if speed is None and not timed and versus in study.experiments and study.records(versus):
        counted = 100 * (ideal / _ideal(study, versus) - 1)
        checker.point(f"{where} counted speed", cells[8], counted)
    else:
        checker.estimate(f"{where} speed", cells[8], speed, lambda value: 100 * (np.exp(value) - 1))
    reached = shifted(_speed(study, name), -np.log(ideal))
    checker.estimate(f"{where} of ideal", cells[9], reached, lambda value: 100 * np.exp(value))


def _check_decisions(checker: Checker, study: Study, where: str, name: str, lines: list[list[str]]) -> None:
    parts = [part for part in decided(study) if part["experiment"] == name]
    looks = bool(study.settings["looks"])
    if len(parts) != len(lines):
        checker.problems.append(f"{where}: {len(lines)} predictions, recomputed {len(parts)}")
    for part, cells in zip(parts, lines, strict=False):
        here = f"{where} {part['aspect']}"
        checker.same(f"{here} predicted", cells[2].partition(" (against")[0], _predicted(part))
        measure = MEASURED.get(part["aspect"])
        scale = float if measure in ("text", "retrieval") else np.exp
        experiment = study.experiments[name]
        if measure == "speed" and experiment["method"] == "sdtp" and part["against"] == experiment["versus"]:
            scale = _change
        effect = study.effect(name, part["against"], measure) if measure and part["against"] else None
        if part["kind"] == "counted" and part.get("effect") is not None:
            checker.point(f"{here} counted", cells[3], _change(part["effect"]))
        else:
            checker.estimate(f"{here} effect", cells[3], effect, scale)
        if part.get("p_adjusted") is None:
            checker.same(f"{here} unread", " ".join(cells[4:-1]), " ".join(["---"] * (3 + looks)))
        else:
            _check_reading(checker, here, part, cells, scale)
            if looks:
                checker.point(f"{here} look", cells[7], part["look"])
        checker.same(f"{here} outcome", cells[-1], _code(part))


def _check_reading(checker: Checker, where: str, part: dict, cells: list[str], scale) -> None:
    value, ends = CELL.fullmatch(cells[4]).groups()
    checker.point(f"{where} reading", value, scale(part["effect"]))
    if part["low"] is None:
        checker.same(f"{where} interval", ends, "no interval")
    else:
        for end, known in zip(ends.strip("$[]").split(r",\,"), (part["low"], part["high"]), strict=True):
            checker.point(f"{where} interval at its reading", end, scale(known))
    p = part["p_adjusted"]
    checker.same(f"{where} p", cells[5], "$p<0.001$" if p < 0.001 else f"$p={p:.3f}$")
    checker.point(f"{where} comparisons", cells[6], part["comparisons"])


def _change(value: float) -> float:
    return 100 * (np.exp(value) - 1)


def _check_ranking(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    records = study.records(name)
    trained, untrained = (ranking(records, when, "spearman") for when in ("ranking", "ranking_untrained"))
    checker.point(f"{where} windows", cells[2], len(trained))
    checker.estimate(f"{where} Spearman", cells[3], ranking_mean(trained), float)
    checker.estimate(f"{where} untrained", cells[4], ranking_mean(untrained), float)
    checker.estimate(f"{where} gain", cells[5], ranking_difference(trained, untrained), float)
    effect = None
    if name != "baseline" and study.records("baseline"):
        own, base = (study.records(item)[0]["totals"]["training"] for item in (name, "baseline"))
        if own["saliency"] == base["saliency"]:
            others = ranking(study.records("baseline"), "ranking", "spearman")
            effect = ranking_difference(trained, others)
    checker.estimate(f"{where} effect", cells[6], effect, float)
    for column, measure, scale in ((7, "ndcg", 1), (8, "overlap", 100)):
        value, before = CELL.fullmatch(cells[column]).groups()
        for cell, when in ((value, "ranking"), (before, "ranking_untrained")):
            mean = scale * ranking_mean(ranking(records, when, measure)).value
            checker.point(f"{where} {measure} {when}", cell, mean)


def _check_pipeline(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    (record,) = study.records(name)
    samples = record["samples"]
    checker.point(f"{where} ranks", cells[2], record["spec"]["pipeline"]["ranks"])
    sent, unpruned = (
        np.mean([row[key] for row in samples], axis=0)
        for key in ("boundary_bytes", "reference_boundary_bytes")
    )
    for cell, amounts in ((cells[3], sent), (cells[4], unpruned)):
        for part, amount in zip(cell.split(", "), amounts, strict=True):
            checker.quantity(f"{where} bytes", part, amount)
    checker.point(f"{where} share", cells[5], 100 * sent.sum() / unpruned.sum())
    checker.estimate(f"{where} prefill", cells[6], _speed(study, name), np.exp)
    ranks = [[100 * rank["idle"] / (rank["idle"] + rank["busy"]) for rank in row["ranks"]] for row in samples]
    idle = np.mean([shares for shares in ranks if shares], axis=0)
    for part, share in zip(cells[7].split(", "), idle, strict=True):
        checker.point(f"{where} idle", part, share)


def _check_sweep(checker: Checker, study: Study, table: Path) -> None:
    """Rows of the sweep carry length and ratio themselves."""
    sweeps = [json.loads(Path(path).read_text()) for path in study.plan["sweeps"] if Path(path).is_file()]
    points = {
        (item["spec"]["tokens"], point["keep_ratio"]): (item, point)
        for item in sweeps
        for point in item["points"]
    }
    lines = [line for line in table.read_text().splitlines() if re.match(r"\s*\d+ & ", line)]
    if len(lines) != len(points):
        checker.problems.append(f"sweep.tex: {len(lines)} rows for {len(points)} points")
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line.strip().removesuffix("\\\\"))]
        key = int(cells[0]), float(NUMBER.findall(cells[1])[0])
        sweep, point = points[key]
        where = f"sweep.tex {key}"
        prefill, whole, library = (
            np.log([pair["reference"] / pair["arm"] for pair in pairs])
            for pairs in (point["prefill"], point["end_to_end"], sweep["library"])
        )
        arm, reference = (middle(pair[side] for pair in point["prefill"]) for side in ("arm", "reference"))
        ideal = point["reference_flops"] / point["flops"]
        speed = np.exp(middle(prefill))
        kv_share = point["kv_bytes"] / point["reference_kv_bytes"]
        expected = [
            *(arm, reference, speed, ideal, 100 * speed / ideal),
            *(np.exp(middle(whole)), 100 * kv_share, 100 * point["overhead"], np.exp(middle(library))),
        ]
        for cell, value in zip(cells[2:], expected, strict=True):
            match = CELL.fullmatch(cell)
            checker.point(where, match[1] if match else cell, value)
        for cell, ratios in ((cells[4], np.exp(prefill)), (cells[7], np.exp(whole))):
            low, high = CELL.fullmatch(cell)[2].strip("$[]").split(",\\,")
            checker.point(f"{where} smallest", low, ratios.min())
            checker.point(f"{where} largest", high, ratios.max())


def _check_grid(checker: Checker, study: Study, table: Path) -> None:
    """Rows of the grids carry draft, length and kind of prompts themselves; some stand in both grids."""
    found = {}
    for name in ("trees", "lengths"):
        path = Path(study.plan["grids"].get(name, ""))
        for point in json.loads(path.read_text())["points"] if path.is_file() else []:
            shape, tau = point["tree"]["shape"], point["tree"]["pruning"]["tau"]
            for kind in [None, *({row["kind"]: 0 for row in point["samples"]} if name == "lengths" else ())]:
                key = shape["method"], shape["depth"], shape["branching"], tau, point["tokens"], kind
                samples = [row for row in point["samples"] if kind in (None, row["kind"]) and row["rounds"]]
                found.setdefault(key, []).append(samples)
    lines = [line for line in table.read_text().splitlines() if re.match(r"\s*(linear|tree) & ", line)]
    if len(lines) != sum(map(len, found.values())):
        checker.problems.append(f"grid.tex: {len(lines)} rows for {sum(map(len, found.values()))} points")
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line.strip().removesuffix("\\\\"))]
        tau = None if cells[3] == "---" else float(cells[3].strip("$"))
        kind = None if cells[5] == "all" else cells[5]
        key = cells[0], int(cells[1]), int(cells[2]), tau, int(cells[4]), kind
        samples = found[key].pop(0)
        where, rounds = f"grid.tex {key}", sum(row["rounds"] for row in samples)
        checker.point(f"{where} tokens", cells[6], np.mean([row["new_tokens"] for row in samples]))
        repeated = 100 * np.mean([row["repeated_4grams"] for row in samples])
        checker.point(f"{where} repeated", cells[7], repeated)
        accepted, drafted = (sum(row[name] for row in samples) for name in ("accepted", "drafted"))
        checker.point(f"{where} tokens/forward", cells[8], (accepted + rounds) / rounds)
        checker.point(f"{where} nodes", cells[9], drafted / rounds)
        prices = np.array([np.log(row["reference_seconds"] / row["seconds"]) for row in samples])
        checker.estimate(f"{where} price", cells[10], mean_of(prices), np.exp)


def _check_decoding(
    checker: Checker, study: Study, where: str, name: str, cells: list[str], versus: str | None, column: int
) -> None:
    """A row of decoding; `column` has the effect, which is a loss in per cent where it is the eighth."""
    records = study.records(name)
    if cells[-1] != "---":
        _check_outcomes(checker, study, where, name, cells[-1])
    if not records:
        # One cell stands for four.
        checker.point(f"{where} effect", cells[column - 3], None)
        if cells[3] not in (r"\multicolumn{4}{c}{crashed}", r"\multicolumn{4}{c}{not run}"):
            checker.problems.append(f"{where}: no result, but the row shows {cells[3]}")
        return
    (record,) = records
    samples = record["samples"]
    checker.same(f"{where} prompts", cells[3], _prompts(record, None))
    checker.point(f"{where} tokens/s", cells[4], _throughput(samples))
    checker.point(f"{where} tokens/forward", cells[5], _tokens_per_forward(_counted(record, None)))
    _check_speedup(checker, f"{where} speed-up", cells[6], record, None)
    effect = study.effect(name, versus, "speed") if versus and versus != name else None
    checker.estimate(f"{where} effect", cells[column], effect, _change if column == 7 else np.exp)


def _seconds(samples: list[dict], side: str) -> float:
    """Sum over prompts of the median over rounds."""
    return sum(middle(pair[side] for pair in row["pairs"]) for row in samples)


def _throughput(samples: list[dict]) -> float:
    return sum(row["new_tokens"] for row in samples) / _seconds(samples, "arm")


def _tokens_per_forward(counted: list[dict]) -> float:
    forwards = sum(row["target_forwards"] for row in counted)
    return (sum(row["accepted"] for row in counted) + forwards) / forwards


def _of(rows: list[dict], kind: str | None) -> list[dict]:
    return [row for row in rows if kind in (None, row["kind"])]


def _counted(record: dict, kind: str | None) -> list[dict]:
    """Prompts on which is counted what no clock plays a part in: replayed ones, or else timed ones."""
    return _of(record["totals"]["replays"], kind) or _of(record["samples"], kind)


def _prompts(record: dict, kind: str | None) -> str:
    """Timed prompts, and the replayed ones that they are a part of."""
    timed, replayed = (len(_of(rows, kind)) for rows in (record["samples"], record["totals"]["replays"]))
    return f"{timed}/{replayed}" if replayed else str(timed)


def _logs(found: dict, kind: str | None) -> dict[str, float]:
    """Log ratios of the prompts of a kind."""
    return {
        name: value[0] if isinstance(value, list) else value
        for name, value in found.items()
        if kind in (None, name.partition("/")[0])
    }


def _estimated(measured: dict[str, float], prices: dict[str, float]) -> Mean:
    return corrected(measured, prices) if prices else mean_of(np.array([*measured.values()]))


def _check_speedup(checker: Checker, where: str, cell: str, record: dict, kind: str | None) -> None:
    if record["spec"]["drafter"] is None:
        checker.point(where, cell, 1.0)
    else:
        mean = _estimated(_logs(speeds([record]), kind), _logs(prices_of(record), kind))
        checker.estimate(where, cell, mean, np.exp)


def blocks(table: Path) -> dict[str, list[list[str]]]:
    """Cells of the lines below each experiment's records."""
    found: dict[str, list[list[str]]] = {}
    for line in table.read_text().splitlines():
        if match := ROW.match(line):
            lines = found[match[1]] = []
        elif found and "&" in line and (end := BREAK.search(line)):
            lines.append([cell.strip() for cell in re.split(r"(?<!\\)&", line[: end.start()])])
    return found


def _check_kinds(checker: Checker, study: Study, table: Path, check_kind) -> None:
    """Lines of each record's block: all prompts first, then each kind."""
    shown = blocks(table)
    paths = [study.experiments[name]["records"][0] for name in shown]
    if len(set(paths)) != len(paths):
        checker.problems.append(f"{table.name}: a record stands there twice")
    for name, lines in shown.items():
        if not study.records(name):
            if "crashed" not in lines[0][2] and "not run" not in lines[0][2]:
                checker.problems.append(f"{table.name} {name}: no result, but the row shows {lines[0]}")
            continue
        (record,) = study.records(name)
        kinds = [None, *dict.fromkeys(row["kind"] for row in record["samples"])]
        if [cells[2] for cells in lines] != [kind or "all" for kind in kinds]:
            checker.problems.append(f"{table.name} {name}: kinds {[cells[2] for cells in lines]}")
        for kind, cells in zip(kinds, lines, strict=False):
            check_kind(checker, f"{table.name} {name} {kind or 'all'}", record, kind, cells)


def _check_speed_of_kind(
    checker: Checker, where: str, record: dict, kind: str | None, cells: list[str]
) -> None:
    samples, counted = _of(record["samples"], kind), _counted(record, kind)
    later, all_later = (sum(row["new_tokens"] - 1 for row in rows) for rows in (samples, counted))
    first = _seconds(samples, "arm_first")
    checker.same(f"{where} prompts", cells[3], _prompts(record, kind))
    checker.point(f"{where} tokens/s", cells[4], _throughput(samples))
    _check_speedup(checker, f"{where} speed-up", cells[5], record, kind)
    checker.point(f"{where} TTFT", cells[6], first / len(samples))
    checker.point(f"{where} TPOT", cells[7], (_seconds(samples, "arm") - first) / later)
    checker.point(f"{where} tokens/forward", cells[8], _tokens_per_forward(counted))
    forwards = sum(row["target_forwards"] for row in counted)
    checker.point(f"{where} forwards/token", cells[9], forwards / all_later)
    exact = [row["matched"] for row in samples]
    tied = sum(row["ties"] > 0 and not row["matched"] for row in samples)
    checker.cells += 1
    if cells[10] != f"{sum(exact)}/{len(exact)}" + (f" ({tied})" if tied else ""):
        checker.problems.append(f"{where}: exact {cells[10]}, recomputed {sum(exact)} of {len(exact)}")
    checker.point(f"{where} repeated", cells[11], 100 * np.mean([row["repeated_4grams"] for row in counted]))


def _check_clocks_of_kind(
    checker: Checker, where: str, record: dict, kind: str | None, cells: list[str]
) -> None:
    whole, rounds = (_logs(found([record]), kind) for found in (speeds, later_speeds))
    prices, later_prices = (_logs(prices_of(record, later), kind) for later in (False, True))
    unlike = 0 if kind else _unlike(record)
    checker.same(f"{where} prompts", cells[3], _prompts(record, kind) + (f" ({unlike})" if unlike else ""))
    checker.estimate(f"{where} speed-up", cells[4], _estimated(whole, prices), np.exp)
    timed, errors = None, None
    if prices:
        timed = mean_of(np.array([*whole.values()]))
        errors = mean_of(np.array([prices[name] - value for name, value in whole.items()]))
    checker.estimate(f"{where} timed prompts", cells[5], timed, np.exp)
    after = _estimated(rounds, later_prices) if rounds else None
    checker.estimate(f"{where} after the first token", cells[6], after, np.exp)
    checker.estimate(f"{where} error of prices", cells[7], errors, _change)


def _unlike(record: dict) -> int:
    """Timed prompts whose rounds were not as replayed."""
    keys = ("drafted_per_round", "accepted_per_round")
    replays = {(row["kind"], row["document"]): row for row in record["totals"]["replays"]}
    found = ((row, replays.get((row["kind"], row["document"]))) for row in record["samples"])
    return sum(other is not None and any(row[key] != other[key] for key in keys) for row, other in found)


def _check_rounds_of_kind(
    checker: Checker, where: str, record: dict, kind: str | None, cells: list[str]
) -> None:
    samples, counted = _of(record["samples"], kind), _counted(record, kind)

    def total(key: str) -> float:
        return sum(row[key] for row in counted)

    parts = [sum(row[f"{name}_seconds"] for row in samples) for name in ("draft", "verify", "bookkeeping")]
    for cell, part in zip(cells[3:6], parts, strict=True):
        checker.point(f"{where} share of time", cell, 100 * part / sum(parts))
    checker.point(f"{where} nodes", cells[6], total("drafted") / total("target_forwards"))
    drafted = total("drafted")
    checker.point(f"{where} accepted", cells[7], 100 * total("accepted") / drafted if drafted else None)
    for depth, cell in enumerate(cells[8:]):
        tested, accepted = (
            sum(row[key][depth] for row in counted if depth < len(row[key]))
            for key in ("tested_per_depth", "accepted_per_depth")
        )
        checker.point(f"{where} depth {depth + 1}", cell, accepted / tested if tested else None)


CHECKS = {
    "sdtp_matrix.tex": _check_matrix,
    "sdtp_further.tex": _check_matrix,
    "sdtp_effects.tex": _check_effects,
    "sdtp_quality.tex": _check_quality,
    "sdtp_cost.tex": _check_cost,
    "sdtp_ranking.tex": _check_ranking,
    "sdtp_pipeline.tex": _check_pipeline,
    "decoding.tex": _check_decoding,
    "decoding_backward.tex": _check_decoding,
    "decoding_adaptation.tex": _check_decoding,
    "decoding_drafter.tex": _check_decoding,
    "decoding_neural.tex": _check_decoding,
    "decoding_further.tex": _check_decoding,
}
BY_KIND = {
    "decoding_kinds.tex": _check_speed_of_kind,
    "decoding_rounds.tex": _check_rounds_of_kind,
    "decoding_clocks.tex": _check_clocks_of_kind,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Recompute the cells of the tables from the records.")
    parser.add_argument(
        "--plan", type=Path, required=True, help="plan of the study (results/stamp/collect.json)"
    )
    parser.add_argument("--tables", type=Path, required=True, help="folder of the rendered tables")
    arguments = parser.parse_args()
    checker = check(arguments.plan, arguments.tables)
    for problem in checker.problems:
        print(problem, file=sys.stderr)
    print(f"{checker.cells} values recomputed, {len(checker.problems)} disagree")
    return 1 if checker.problems or not checker.cells else 0


if __name__ == "__main__":
    sys.exit(main())
