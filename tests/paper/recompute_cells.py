"""Recompute every number in the rendered tables from the records, with numpy alone.

Independent of the package on purpose: it reads the JSON of plan and records by itself, has its own BCa
bootstrap, and finds a row's record by the comment above the row. Point values must agree to the last
printed digit, interval ends to a share of the interval's width (the resamples differ).

    python tests/paper/recompute_cells.py --plan results/stamp/collect.json --tables paper/tables
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
ROW = re.compile(r"^\s*% (\S+): (.+?)(?: sha256 ([0-9a-f]{64})| \(missing\))$")
INTERVAL_SLACK = 0.2
RESAMPLES = 20_000


def bca(values: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """Efron's BCa interval of a mean."""
    if len(values) < 2:
        return None
    if np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()):
        return values[0], values[0]
    rng = np.random.default_rng(1)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    normal = NormalDist()
    below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    shift = normal.inv_cdf(below)
    jackknife = (values.sum() - values) / (len(values) - 1)
    centred = jackknife.mean() - jackknife
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)

    def end(level: float) -> float:
        z = shift + normal.inv_cdf(level)
        return float(np.quantile(means, normal.cdf(shift + z / (1 - acceleration * z))))

    return end(alpha / 2), end(1 - alpha / 2)


class Study:
    """Plan and records, as plain JSON."""

    def __init__(self, plan: Path) -> None:
        self.plan = json.loads(plan.read_text())
        self.experiments = {item["id"]: item for item in self.plan["experiments"]}
        self.alpha = self.plan["settings"]["thresholds"]["alpha"]

    def record(self, name: str) -> dict | None:
        """Record of an experiment that ended well."""
        path = Path(self.experiments[name]["record"])
        if not path.is_file():
            return None
        record = json.loads(path.read_text())
        return record if record["outcome"]["status"] == "ok" else None

    def quality(self, name: str) -> dict[str, float] | None:
        record = self.record(name)
        return record and {row["document"]: row["nll"] - row["reference_nll"] for row in record["samples"]}

    def speed(self, name: str) -> dict[str, float] | None:
        record = self.record(name)
        if record is None:
            return None
        alone = "drafter" in record["spec"] and record["spec"]["drafter"] is None
        return {
            (row.get("kind"), row["document"]): 0.0
            if alone
            else float(np.mean([np.log(pair["reference"]) - np.log(pair["arm"]) for pair in row["pairs"]]))
            for row in record["samples"]
            if row["pairs"]
        }


def difference(arm: dict | None, versus: dict | None) -> np.ndarray | None:
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
        if abs(float(numbers[0]) - expected) > 0.5 * 10**-decimals + 1e-9:
            self.problems.append(f"{where}: cell {numbers[0]}, recomputed {expected:.6g}")

    def estimate(self, where: str, cell: str, values: np.ndarray | None, scale) -> None:
        """A cell with a mean and its interval, both on the scale they are printed on."""
        match = re.fullmatch(r"\\ablationcell\{(.*)\}\{(.*)\}", cell)
        if match is None or values is None or not len(values):
            self.point(where, cell, None if values is None or not len(values) else scale(values.mean()))
            return
        self.point(where, match[1], scale(values.mean()))
        ends, expected = NUMBER.findall(match[2]), bca(values, self.alpha)
        self.cells += 1
        if not ends or expected is None:
            if ends or expected is not None:
                self.problems.append(f"{where}: interval '{match[2]}', recomputed {expected}")
            return
        width = scale(expected[1]) - scale(expected[0])
        for printed, recomputed in zip(ends, expected, strict=True):
            slack = INTERVAL_SLACK * width + 10.0 ** -len(printed.partition(".")[2])
            if abs(float(printed) - scale(recomputed)) > slack:
                self.problems.append(f"{where}: interval {match[2]}, recomputed {scale(recomputed):.4g}")


def rows(path: Path) -> list[tuple[str, str, str | None, list[str]]]:
    """Id, record, hash and cells of each row of a table."""
    found, lines = [], path.read_text().splitlines()
    for number, line in enumerate(lines):
        if match := ROW.match(line):
            # The row ends with the line that ends in a LaTeX line break.
            end = next(i for i in range(number + 1, len(lines)) if lines[i].endswith("\\\\"))
            text = " ".join(lines[number + 1 : end + 1]).removesuffix("\\\\")
            cells = [cell.strip() for cell in re.split(r"(?<!\\)&", text)]
            found.append((match[1], match[2], match[3], cells))
    return found


def check(plan: Path, tables: Path) -> Checker:
    study = Study(plan)
    checker = Checker(study.alpha)
    full = study.plan["settings"]["full_method"]
    for table in ("sdtp_matrix.tex", "decoding.tex", "decoding_backward.tex"):
        for name, record, digest, cells in rows(tables / table):
            where = f"{table} {name}"
            if record != study.experiments[name]["record"]:
                checker.problems.append(f"{where}: names {record}")
            path = Path(record)
            actual = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
            if digest != actual:
                checker.problems.append(f"{where}: its record is not the one that was rendered")
            if table == "sdtp_matrix.tex":
                _check_sdtp(checker, study, where, name, cells)
            else:
                versus = study.experiments[name]["versus"] if table == "decoding.tex" else full
                _check_decoding(checker, study, where, name, cells, versus, table == "decoding.tex")
    return checker


def _check_sdtp(checker: Checker, study: Study, where: str, name: str, cells: list[str]) -> None:
    quality, speed, record = study.quality(name), study.speed(name), study.record(name)
    versus = study.experiments[name]["versus"]
    own = None if quality is None else np.array(list(quality.values()))
    checker.estimate(f"{where} NLL", cells[4], own, float)
    effect = difference(quality, study.quality(versus)) if versus else None
    checker.estimate(f"{where} effect", cells[5], effect, float)
    timed = np.array(list(speed.values())) if speed else None
    checker.estimate(f"{where} prefill", cells[6], timed, np.exp)
    totals = record and record["totals"]
    share = 100 * totals["prefill_flops"] / totals["reference_prefill_flops"] if totals else None
    checker.point(f"{where} FLOPs", cells[7], share)


def _check_decoding(
    checker: Checker, study: Study, where: str, name: str, cells: list[str], versus: str | None, forward: bool
) -> None:
    record, speed = study.record(name), study.speed(name)
    if record is None:
        checker.point(f"{where} effect", cells[-1], None)
        if cells[3] not in (r"\multicolumn{4}{c}{crashed}", r"\multicolumn{4}{c}{not run}"):
            checker.problems.append(f"{where}: no result, but the row shows {cells[3]}")
        return
    samples = record["samples"]
    checker.point(f"{where} prompts", cells[3], len(samples))
    seconds = [np.exp(np.mean(np.log([pair["arm"] for pair in row["pairs"]]))) for row in samples]
    checker.point(f"{where} tokens/s", cells[4], sum(row["new_tokens"] for row in samples) / np.sum(seconds))
    forwards = sum(row["target_forwards"] for row in samples)
    accepted = sum(row["accepted"] for row in samples)
    checker.point(f"{where} tokens/forward", cells[5], (accepted + forwards) / forwards)
    if record["spec"]["drafter"] is None:
        checker.point(f"{where} speed-up", cells[6], 1.0)
    else:
        checker.estimate(f"{where} speed-up", cells[6], np.array(list(speed.values())), np.exp)
    effect = difference(speed, study.speed(versus)) if versus and versus != name else None
    scale = np.exp if forward else (lambda value: 100 * (np.exp(value) - 1))
    checker.estimate(f"{where} effect", cells[-1], effect, scale)


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
