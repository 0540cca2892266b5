"""Recompute every number in the rendered tables from the records, with numpy and Student's quantiles.

Independent of the package on purpose: it reads the JSON of plan and records by itself, has its own
intervals, and finds a row's records by the comments above the row. Point values must agree to the last
printed digit, ends of bootstrap intervals to a share of the interval's width (the resamples differ).

    python tests/paper/recompute_cells.py --plan results/stamp/collect.json --tables paper/tables
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.stats import t as student

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
ROW = re.compile(r"^\s*% (\S+): (.+?)(?: sha256 ([0-9a-f]{64})| \(missing\))$")
BREAK = re.compile(r"\\\\\*?$")
"""End of a table's line; the starred break keeps the next line on the page."""
CELL = re.compile(r"\\ablationcell\{(.*)\}\{(.*)\}")
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "G": 1e9}
INTERVAL_SLACK = 0.2
RESAMPLES = 20_000


def middle(numbers: Iterable[float]) -> float:
    """The middle one of sorted numbers, or the mean of the middle two."""
    ordered = sorted(numbers)
    half = len(ordered) // 2
    return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def interval(values: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """Interval of a mean: Student's t under 20 values, else BCa (Efron) at an expanded level (Hesterberg)."""
    n = len(values)
    if n < 2:
        return None
    if np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()):
        return values[0], values[0]
    tail = student.ppf(alpha / 2, n - 1)
    if n < 20:
        half = -tail * values.std(ddof=1) / np.sqrt(n)
        return values.mean() - half, values.mean() + half
    rng = np.random.default_rng(1)
    means = values[rng.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    normal = NormalDist()
    below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    shift = normal.inv_cdf(below)
    jackknife = (values.sum() - values) / (n - 1)
    centred = jackknife.mean() - jackknife
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)

    def end(z: float) -> float:
        z = shift + z
        return float(np.quantile(means, normal.cdf(shift + z / (1 - acceleration * z))))

    wide = float(tail * np.sqrt(n / (n - 1)))
    return end(wide), end(-wide)


class Study:
    """Plan and records, as plain JSON."""

    def __init__(self, plan: Path) -> None:
        self.plan = json.loads(plan.read_text())
        self.experiments = {item["id"]: item for item in self.plan["experiments"]}
        self.alpha = self.plan["settings"]["thresholds"]["alpha"]
        self._records: dict[str, list[dict]] = {}

    def records(self, name: str) -> list[dict]:
        """Records of an experiment, one per seed, if all of them ended well."""
        if name not in self._records:
            paths = [Path(path) for path in self.experiments[name]["records"]]
            found = [json.loads(path.read_text()) for path in paths if path.is_file()]
            ended_well = [record for record in found if record["outcome"]["status"] == "ok"]
            self._records[name] = found if len(ended_well) == len(paths) else []
        return self._records[name]

    def per_document(self, name: str, value) -> dict[str, float]:
        """A value of each document, a mean over seeds."""
        found: dict[str, list[float]] = {}
        for record in self.records(name):
            for row in record["samples"]:
                found.setdefault(row["document"], []).append(value(row))
        return {document: float(np.mean(values)) for document, values in found.items()}

    def quality(self, name: str) -> dict[str, float]:
        return self.per_document(name, lambda row: row["nll"] - row["reference_nll"])

    def speed(self, name: str) -> dict[tuple, float]:
        found = {}
        for record in self.records(name):
            alone = "drafter" in record["spec"] and record["spec"]["drafter"] is None
            for row in record["samples"]:
                if row["pairs"]:
                    logs = [np.log(pair["reference"]) - np.log(pair["arm"]) for pair in row["pairs"]]
                    found[row.get("kind"), row["document"]] = 0.0 if alone else middle(logs)
        return found

    def ranking(self, name: str, when: str, measure: str) -> dict[str, float]:
        """Mean over stages, then over seeds, of each held-out window."""
        found: dict[str, list[float]] = {}
        for record in self.records(name):
            for row in record["totals"]["training"][when]:
                found.setdefault(row["document"], []).append(np.mean(row[measure]))
        return {window: float(np.mean(values)) for window, values in found.items()}


def values_of(found: dict) -> np.ndarray | None:
    return np.array(list(found.values())) if found else None


def difference(arm: dict, versus: dict) -> np.ndarray | None:
    if not arm or not versus:
        return None
    return np.array([arm[key] - versus[key] for key in arm if key in versus])


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

    def estimate(self, where: str, cell: str, values: np.ndarray | None, scale) -> None:
        """A cell with a mean and its interval, both on the scale they are printed on."""
        match = CELL.fullmatch(cell)
        if match is None or values is None or not len(values):
            self.point(where, cell, None if values is None or not len(values) else scale(values.mean()))
            return
        self.point(where, match[1], scale(values.mean()))
        ends, expected = NUMBER.findall(match[2]), interval(values, self.alpha)
        self.cells += 1
        if not ends or expected is None:
            if ends or expected is not None:
                self.problems.append(f"{where}: interval '{match[2]}', recomputed {expected}")
            return
        width = scale(expected[1]) - scale(expected[0])
        for printed, recomputed in zip(ends, expected, strict=True):
            if "{>}" + printed in match[2] and scale(recomputed) > float(printed):
                continue
            slack = INTERVAL_SLACK * width + 10.0 ** -len(printed.partition(".")[2])
            if abs(float(printed) - scale(recomputed)) > slack:
                self.problems.append(f"{where}: interval {match[2]}, recomputed {scale(recomputed):.4g}")

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
    study = Study(plan)
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
    for table, check_kind in BY_KIND.items():
        _check_kinds(checker, study, tables / table, check_kind)
    return checker


def _effect(study: Study, name: str) -> np.ndarray | None:
    versus = study.experiments[name]["versus"]
    return difference(study.quality(name), study.quality(versus)) if versus else None


def _mean_total(study: Study, name: str, key: str) -> float | None:
    records = study.records(name)
    return float(np.mean([record["totals"][key] for record in records])) if records else None


def _check_matrix(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    checker.estimate(f"{where} NLL", cells[4], values_of(study.quality(name)), float)
    checker.estimate(f"{where} effect", cells[5], _effect(study, name), float)
    checker.estimate(f"{where} prefill", cells[6], values_of(study.speed(name)), np.exp)
    flops = _mean_total(study, name, "prefill_flops")
    share = flops and 100 * flops / _mean_total(study, name, "reference_prefill_flops")
    checker.point(f"{where} FLOPs", cells[7], share)


def _check_quality(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    records = study.records(name)
    checker.point(
        f"{where} NLL", cells[2], np.mean([row["nll"] for item in records for row in item["samples"]])
    )
    checker.estimate(f"{where} effect", cells[3], _effect(study, name), float)
    agreement = study.per_document(name, lambda row: row["agreement"])
    checker.estimate(f"{where} agreement", cells[4], values_of(agreement), lambda share: 100 * share)
    checker.estimate(
        f"{where} KL", cells[5], values_of(study.per_document(name, lambda row: row["kl"])), float
    )
    probes = [probe for item in records for probe in item["totals"]["retrieval"]]
    hits = sum(probe["hit"] for probe in probes)
    ceiling = sum(probe["reference_hit"] for probe in probes)
    checker.cells += 1
    if cells[6] != (f"{hits}/{len(probes)} ({ceiling})" if probes else "---"):
        checker.problems.append(f"{where}: passkeys {cells[6]}, recomputed {hits} of {len(probes)}")
    checker.point(f"{where} seeds", cells[7], len(records))
    means = [np.mean([row["nll"] - row["reference_nll"] for row in item["samples"]]) for item in records]
    checker.point(f"{where} SD", cells[8], np.std(means, ddof=1) if len(means) > 1 else None)


def _check_cost(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    records, flops = study.records(name), _mean_total(study, name, "prefill_flops")
    ideal = _mean_total(study, name, "reference_prefill_flops") / flops
    checker.quantity(f"{where} operations", cells[2], flops)
    checker.point(f"{where} FLOPs", cells[3], 100 / ideal)
    samples = [row for record in records for row in record["samples"]]
    checker.point(f"{where} tokens", cells[4], np.mean([row["living"][-1] for row in samples]))
    shares = [100 * row["living"][-1] / row["prompt_tokens"] for row in samples]
    checker.point(f"{where} share of tokens", cells[5], np.mean(shares))
    kv_bytes = _mean_total(study, name, "kv_bytes")
    checker.quantity(f"{where} KV", cells[6], kv_bytes)
    share = 100 * kv_bytes / _mean_total(study, name, "reference_kv_bytes")
    checker.point(f"{where} share of KV", cells[7], share)
    checker.quantity(
        f"{where} peak", cells[8], max(record["totals"]["peak_memory_bytes"] for record in records)
    )
    timed = [row["pairs"] for row in samples if row["pairs"]]
    for column, side in ((9, "arm"), (10, "reference")):
        seconds = [middle(pair[side] for pair in pairs) for pairs in timed]
        checker.point(f"{where} {side} seconds", cells[column], np.mean(seconds) if seconds else None)
    speed = values_of(study.speed(name))
    reached = None if speed is None else speed - np.log(ideal)
    checker.estimate(f"{where} of ideal", cells[11], reached, lambda value: 100 * np.exp(value))


def _check_ranking(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    trained, untrained = (study.ranking(name, when, "spearman") for when in ("ranking", "ranking_untrained"))
    checker.point(f"{where} windows", cells[2], len(trained))
    checker.estimate(f"{where} Spearman", cells[3], values_of(trained), float)
    checker.estimate(f"{where} untrained", cells[4], values_of(untrained), float)
    checker.estimate(f"{where} gain", cells[5], difference(trained, untrained), float)
    effect = None
    if name != "baseline" and study.records("baseline"):
        own, base = (study.records(item)[0]["totals"]["training"] for item in (name, "baseline"))
        if own["saliency"] == base["saliency"]:
            effect = difference(trained, study.ranking("baseline", "ranking", "spearman"))
    checker.estimate(f"{where} effect", cells[6], effect, float)
    for column, measure, scale in ((7, "ndcg", 1), (8, "overlap", 100)):
        value, before = CELL.fullmatch(cells[column]).groups()
        for cell, when in ((value, "ranking"), (before, "ranking_untrained")):
            mean = scale * np.mean(list(study.ranking(name, when, measure).values()))
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
    checker.estimate(f"{where} prefill", cells[6], values_of(study.speed(name)), np.exp)
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
        checker.estimate(f"{where} price", cells[10], prices, np.exp)


def _check_decoding(
    checker: Checker, study: Study, where: str, name: str, cells: list[str], versus: str | None, column: int
) -> None:
    """A row of decoding; `column` has the effect, which is a loss in per cent where it is the eighth."""
    records, speed = study.records(name), study.speed(name)
    if not records:
        # One cell stands for four.
        checker.point(f"{where} effect", cells[column - 3], None)
        if cells[3] not in (r"\multicolumn{4}{c}{crashed}", r"\multicolumn{4}{c}{not run}"):
            checker.problems.append(f"{where}: no result, but the row shows {cells[3]}")
        return
    (record,) = records
    samples = record["samples"]
    checker.point(f"{where} prompts", cells[3], len(samples))
    checker.point(f"{where} tokens/s", cells[4], _throughput(samples))
    checker.point(f"{where} tokens/forward", cells[5], _tokens_per_forward(samples))
    _check_speedup(checker, f"{where} speed-up", cells[6], record, list(speed.values()))
    effect = difference(speed, study.speed(versus)) if versus and versus != name else None
    scale = (lambda value: 100 * (np.exp(value) - 1)) if column == 7 else np.exp
    checker.estimate(f"{where} effect", cells[column], effect, scale)


def _seconds(samples: list[dict], side: str) -> float:
    """Sum over prompts of the median over rounds."""
    return sum(middle(pair[side] for pair in row["pairs"]) for row in samples)


def _throughput(samples: list[dict]) -> float:
    return sum(row["new_tokens"] for row in samples) / _seconds(samples, "arm")


def _tokens_per_forward(samples: list[dict]) -> float:
    forwards = sum(row["target_forwards"] for row in samples)
    return (sum(row["accepted"] for row in samples) + forwards) / forwards


def _check_speedup(checker: Checker, where: str, cell: str, record: dict, logs: list[float]) -> None:
    if record["spec"]["drafter"] is None:
        checker.point(where, cell, 1.0)
    else:
        checker.estimate(where, cell, np.array(logs), np.exp)


def _check_kinds(checker: Checker, study: Study, table: Path, check_kind) -> None:
    """Lines of each record's block: all prompts first, then each kind."""
    blocks: dict[str, list[list[str]]] = {}
    for line in table.read_text().splitlines():
        if match := ROW.match(line):
            lines = blocks[match[1]] = []
        elif blocks and "&" in line and (end := BREAK.search(line)):
            lines.append([cell.strip() for cell in re.split(r"(?<!\\)&", line[: end.start()])])
    paths = [study.experiments[name]["records"][0] for name in blocks]
    if len(set(paths)) != len(paths):
        checker.problems.append(f"{table.name}: a record stands there twice")
    for name, lines in blocks.items():
        if not study.records(name):
            if "crashed" not in lines[0][2] and "not run" not in lines[0][2]:
                checker.problems.append(f"{table.name} {name}: no result, but the row shows {lines[0]}")
            continue
        (record,) = study.records(name)
        kinds = [None, *dict.fromkeys(row["kind"] for row in record["samples"])]
        if [cells[2] for cells in lines] != [kind or "all" for kind in kinds]:
            checker.problems.append(f"{table.name} {name}: kinds {[cells[2] for cells in lines]}")
        for kind, cells in zip(kinds, lines, strict=False):
            samples = [row for row in record["samples"] if kind in (None, row["kind"])]
            speeds = [log for (own, _), log in study.speed(name).items() if kind in (None, own)]
            check_kind(checker, f"{table.name} {name} {kind or 'all'}", record, samples, speeds, cells)


def _check_speed_of_kind(
    checker: Checker, where: str, record: dict, samples: list[dict], speeds: list[float], cells: list[str]
) -> None:
    later = sum(row["new_tokens"] - 1 for row in samples)
    first = _seconds(samples, "arm_first")
    checker.point(f"{where} prompts", cells[3], len(samples))
    checker.point(f"{where} tokens/s", cells[4], _throughput(samples))
    _check_speedup(checker, f"{where} speed-up", cells[5], record, speeds)
    checker.point(f"{where} TTFT", cells[6], first / len(samples))
    checker.point(f"{where} TPOT", cells[7], (_seconds(samples, "arm") - first) / later)
    checker.point(f"{where} tokens/forward", cells[8], _tokens_per_forward(samples))
    checker.point(f"{where} forwards/token", cells[9], sum(row["target_forwards"] for row in samples) / later)
    exact = [row["matched"] for row in samples]
    tied = sum(row["ties"] > 0 and not row["matched"] for row in samples)
    checker.cells += 1
    if cells[10] != f"{sum(exact)}/{len(exact)}" + (f" ({tied})" if tied else ""):
        checker.problems.append(f"{where}: exact {cells[10]}, recomputed {sum(exact)} of {len(exact)}")
    checker.point(f"{where} repeated", cells[11], 100 * np.mean([row["repeated_4grams"] for row in samples]))


def _check_rounds_of_kind(
    checker: Checker, where: str, record: dict, samples: list[dict], speeds: list[float], cells: list[str]
) -> None:
    def total(key: str) -> float:
        return sum(row[key] for row in samples)

    parts = [total(f"{name}_seconds") for name in ("draft", "verify", "bookkeeping")]
    for cell, part in zip(cells[3:6], parts, strict=True):
        checker.point(f"{where} share of time", cell, 100 * part / sum(parts))
    checker.point(f"{where} nodes", cells[6], total("drafted") / total("target_forwards"))
    drafted = total("drafted")
    checker.point(f"{where} accepted", cells[7], 100 * total("accepted") / drafted if drafted else None)
    for depth, cell in enumerate(cells[8:]):
        tested, accepted = (
            sum(row[key][depth] for row in samples if depth < len(row[key]))
            for key in ("tested_per_depth", "accepted_per_depth")
        )
        checker.point(f"{where} depth {depth + 1}", cell, accepted / tested if tested else None)


CHECKS = {
    "sdtp_matrix.tex": _check_matrix,
    "sdtp_further.tex": _check_matrix,
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
BY_KIND = {"decoding_kinds.tex": _check_speed_of_kind, "decoding_rounds.tex": _check_rounds_of_kind}


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
