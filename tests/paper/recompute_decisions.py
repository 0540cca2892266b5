"""Effects, their intervals and the decisions on predictions, from plan and records as plain JSON.

Independent of the package on purpose: numpy and Student's distribution. The formulas are those of the issue
that asked for them (Hall 1992, documents crossed with seeds, rule S with Holm's step-down, declared looks;
speed of decoding from priced prompts: regression on prices within kinds of prompts).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

MEASURED = {
    "text": "text",
    "retrieval": "retrieval",
    "speed": "speed",
    "above": "speed",
    "below": "speed",
    "about": "speed",
}
ANY = "any"
"""Column of results in which no training seed plays a part."""


def middle(numbers: Iterable[float]) -> float:
    """The middle one of sorted numbers, or the mean of the middle two."""
    ordered = sorted(numbers)
    half = len(ordered) // 2
    return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


class Source(NamedTuple):
    """One estimate of the error of a mean: standard error, degrees of freedom, skewness over 3 sqrt(n)."""

    error: float
    df: float
    skew: float

    def statistics(self, gap: float) -> tuple[float, float]:
        """Student's statistic of a gap, and Hall's."""
        if gap == 0:
            return 0.0, self.skew / 2
        if self.error == 0:
            return (math.copysign(math.inf, gap),) * 2
        t, a = gap / self.error, self.skew
        return t, t + a * t**2 + a**2 * t**3 / 3 + a / 2

    def p(self, gap: float) -> float:
        one, other = self.statistics(gap)
        if np.sign(one) != np.sign(other):
            return 1.0
        return float(2 * student.sf(min(abs(one), abs(other)), self.df))

    def reach(self, quantile: float) -> float:
        """How many standard errors below the mean the value lies of which Hall's statistic is `quantile`."""
        a = self.skew
        if abs(a) < 1e-12:
            return quantile
        return (np.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a


class Mean(NamedTuple):
    """A mean, and estimates of its error, of which the worst counts; without any it has no interval."""

    value: float
    sources: tuple[Source, ...]

    def p(self, at: float) -> float:
        return max((source.p(self.value - at) for source in self.sources), default=1.0)

    def interval(self, alpha: float) -> tuple[float, float] | None:
        ends = []
        for source in self.sources:
            quantile = float(student.isf(alpha / 2, source.df))
            ends.append(self.value - source.error * max(quantile, source.reach(quantile)))
            ends.append(self.value - source.error * min(-quantile, source.reach(-quantile)))
        return (min(ends), max(ends)) if ends else None


def skewness(values: np.ndarray) -> float:
    n = len(values)
    spread = values.std()
    if n < 3 or spread == 0:
        return 0.0
    return math.sqrt(n * (n - 1)) / (n - 2) * float((((values - values.mean()) / spread) ** 3).mean())


def mean_of(values: np.ndarray) -> Mean:
    """Mean of independent values; one, or several that are equal and not zero, have no interval."""
    n, size = len(values), float(np.abs(values).max())
    if size <= 1e-12:
        return Mean(0.0, (Source(0.0, n - 1, 0.0),) if n > 1 else ())
    if n < 2 or np.ptp(values) <= 1e-12 * max(1.0, size):
        return Mean(float(values.mean()), ())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return Mean(float(values.mean()), (Source(error, n - 1, skewness(values) / (3 * math.sqrt(n))),))


def crossed(table: np.ndarray, pool: tuple[float, float] | None = None) -> Mean:
    """Mean of documents (rows) crossed with seeds (columns).

    `pool`: variance between seeds of the means of several rows, and its degrees of freedom.
    """
    documents, seeds = table.shape
    plain = mean_of(table.mean(axis=1))
    if seeds == 1 or documents == 1 or not plain.sources:
        return plain
    middle_row, middle_column = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = table - middle_row - middle_column + table.mean()
    square_documents = seeds * float(middle_row.var(ddof=1))
    square_rest = float((rest**2).sum()) / ((documents - 1) * (seeds - 1))
    between = [(documents * float(middle_column.var(ddof=1)), seeds - 1.0)]
    if pool is not None:
        between.append((documents * pool[0], pool[1]))
    sources = []
    for square, df in between:
        total = max(square_documents, square_documents + square - square_rest)
        spread = (
            square_documents**2 / (documents - 1)
            + square**2 / df
            + square_rest**2 / ((documents - 1) * (seeds - 1))
        )
        freedom = documents - 1.0 if spread == 0 else min(max(total**2 / spread, 2.0), documents - 1.0)
        error = math.sqrt(total / (documents * seeds))
        share = 1.0 if error == 0 else plain.sources[0].error / error
        sources.append(Source(error, freedom, plain.sources[0].skew * share**3))
    return Mean(plain.value, tuple(sources))


FEWEST = 15
"""Timed prompts from which on the slope of measured values on prices is estimated; under it, it is 1."""


def corrected(measured: Mapping[str, float], priced: Mapping[str, float]) -> Mean:
    """Mean of all priced prompts, kinds alike, of what was measured on some; names are kind/document."""
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in priced))
    timed = [[name for name in measured if name.partition("/")[0] == kind] for kind in kinds]
    every = [np.array([priced[name] for name in priced if name.partition("/")[0] == kind]) for kind in kinds]
    names = [name for own in timed for name in own]
    values, prices = (np.array([known[name] for name in names]) for known in (measured, priced))
    among = np.array([[float(name in own) for own in timed] for name in names])
    counts = among.sum(axis=0)
    centre = among / counts
    inner = prices - among @ (prices @ centre)
    slope, regressors = 1.0, len(kinds)
    if len(names) >= FEWEST:
        slope = float(inner @ values) / float(inner @ inner) if inner.any() else 0.0
        regressors += 1
    rest = values - slope * prices
    residuals = rest - among @ (rest @ centre)
    freedom = len(names) - regressors
    value = float(np.mean(rest @ centre) + slope * np.mean([own.mean() for own in every]))
    if not freedom:
        return Mean(value, ())
    scatter = float(residuals @ residuals) / freedom
    # How much the mean of each timed prompt weighs in the estimate, were its price known for all prompts.
    weights = centre.mean(axis=1)
    if regressors > len(kinds) and inner.any():
        gap = np.mean([own.mean() for own in every]) - np.mean(prices @ centre)
        weights = weights + inner * gap / float(inner @ inner)
    parts = [(scatter * float(weights @ weights), freedom)]
    parts += [
        (float((slope * own / len(kinds)).var(ddof=1)) / len(own), len(own) - 1)
        for own in every
        if len(own) > 1
    ]
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    both = 0.0
    if regressors == len(kinds):
        shared = float(residuals @ inner) / freedom
        both = 2 * shared * sum(1 / len(own) for own in every) / len(kinds) ** 2
    error = math.sqrt(max(total + both, parts[0][0]))
    return Mean(value, (Source(error, total**2 / spread if spread else float(freedom), 0.0),))


class Table(NamedTuple):
    """Results of an experiment: documents in the order of measurement, columns by training seed."""

    rows: dict[str, list[float]]
    seeds: list[Any]


class Study:
    """What a plan says of experiments and settings, and their records.

    Args:
        plan: `settings` and `experiments`, as in results/stamp/collect.json.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.settings = plan["settings"]
        self.alpha = self.settings["thresholds"]["alpha"]
        self.experiments = {item["id"]: item for item in plan["experiments"]}
        self.confirmatory = self.settings["confirmatory"]
        self._found: dict[str, list[dict]] = {}
        self._tables: dict[tuple[str, str], Table | None] = {}

    def found(self, name: str) -> list[dict]:
        """All records of an experiment that are there."""
        if name not in self._found:
            paths = map(Path, self.experiments[name]["records"])
            self._found[name] = [json.loads(path.read_text()) for path in paths if path.is_file()]
        return self._found[name]

    def status(self, name: str) -> str:
        found = self.found(name)
        if any(record["outcome"]["status"] == "crashed" for record in found):
            return "crashed"
        return "ok" if len(found) == len(self.experiments[name]["records"]) else "not_run"

    def records(self, name: str) -> list[dict]:
        """Its records, if all are there and ended well."""
        return self.found(name) if self.status(name) == "ok" else []

    def table(self, name: str, measure: str) -> Table | None:
        if (name, measure) not in self._tables:
            self._tables[name, measure] = self._table(name, measure)
        return self._tables[name, measure]

    def _table(self, name: str, measure: str) -> Table | None:
        records, experiment = self.records(name), self.experiments[name]
        if not records:
            return None
        if measure == "speed":
            rows = speeds(records)
            return Table({key: [float(np.mean(logs))] for key, logs in rows.items()}, [ANY]) if rows else None
        if experiment["method"] == "dynatree":
            return None
        columns = [
            {row["document"]: row["kl"] for row in record["samples"]}
            if measure == "text"
            else {probe["document"]: probe["nll"] for probe in record["totals"]["retrieval"]}
            for record in records
        ]
        shared = [key for key in columns[0] if all(key in column for column in columns)]
        if not shared:
            return None
        rows = {key: [column[key] for column in columns] for key in shared}
        if experiment["seeds"]:
            return Table(rows, list(experiment["seeds"]))
        return Table({key: [float(np.mean(values))] for key, values in rows.items()}, [ANY])

    def differences(
        self, arm: str, versus: str | None, measure: str, first: int | None = None
    ) -> np.ndarray | None:
        """Results of an arm minus those of another one, documents x seeds; None where there are none."""
        own = self.table(arm, measure)
        if own is None or (versus is not None and versus not in self.experiments):
            return None
        if versus is None:
            return np.array(list(own.rows.values())[:first])
        other = self.table(versus, measure)
        if other is None or (measure == "speed" and self.device(arm) != self.device(versus)):
            return None
        theirs = dict(list(other.rows.items())[:first])
        keys = [key for key in list(own.rows)[:first] if key in theirs]
        seeds = [seed for seed in own.seeds if seed in other.seeds or other.seeds == [ANY]]
        if own.seeds == [ANY]:
            seeds = other.seeds
        if not keys or not seeds:
            return None

        def column(table: Table, seed: Any) -> int:
            return 0 if table.seeds == [ANY] else table.seeds.index(seed)

        return np.array(
            [
                [own.rows[key][column(own, seed)] - theirs[key][column(other, seed)] for seed in seeds]
                for key in keys
            ]
        )

    def device(self, name: str) -> str | None:
        for record in self.found(name):
            if any(row["pairs"] for row in record["samples"]):
                return record["environment"]["device"]
        return None

    def effect(self, arm: str, versus: str | None, measure: str, first: int | None = None) -> Mean | None:
        """The effect of an arm; with `first`, of the first documents, which quality must all have."""
        sides = [name for name in (arm, versus) if name in self.experiments]
        prices = [self.priced(name) for name in sides]
        if (
            measure == "speed"
            and any(prices)
            and all(own or self.alone(name) for own, name in zip(prices, sides, strict=True))
        ):
            return self._corrected(arm, versus, prices)
        table = self.differences(arm, versus, measure, first)
        if table is None or (first is not None and measure != "speed" and len(table) < first):
            return None
        return crossed(table, self._pool(arm, versus, measure, first, table.shape[1]))

    def priced(self, name: str) -> dict[str, float]:
        """Log speed-up of each replayed prompt by its prices."""
        records = self.records(name)
        return prices_of(records[0]) if records else {}

    def alone(self, name: str) -> bool:
        """Whether it decodes without a drafter."""
        return any(record["spec"].get("drafter", "none") is None for record in self.records(name))

    def _corrected(self, arm: str, versus: str | None, prices: Sequence[dict[str, float]]) -> Mean | None:
        """Prompts are priced for both, or one of them is the reference itself, whose speed-up is one."""
        if self.differences(arm, versus, "speed") is None:
            return None
        tables = [self.table(name, "speed").rows for name in (arm, versus) if name is not None]
        signs = (1, -1)
        shared = [name for name in tables[0] if all(name in table for table in tables)]
        wanted = [name for name in (prices[0] or prices[1]) if all(name in own for own in prices if own)]
        priced = {
            name: sum(sign * own.get(name, 0.0) for sign, own in zip(signs, prices, strict=False))
            for name in wanted
        }
        measured = {
            name: sum(sign * table[name][0] for sign, table in zip(signs, tables, strict=False))
            for name in shared
            if name in priced
        }
        return corrected(measured, priced)

    def _pool(
        self, arm: str, versus: str | None, measure: str, first: int | None, seeds: int
    ) -> tuple[float, float] | None:
        """Variance between seeds of the trained confirmatory rows that `arm` is one of."""
        family = [*self.confirmatory["sdtp"], *self.confirmatory["dynatree"]]
        alike = [
            name
            for name in family
            if name in self.experiments
            and versus is not None
            and self.experiments[name]["versus"] == versus
            and self.experiments[name]["seeds"]
            and self.experiments[versus]["seeds"]
        ]
        if seeds == 1 or arm not in alike:
            return None
        tables = (self.differences(name, versus, measure, first) for name in alike)
        found = [
            table.mean(axis=0).var(ddof=1)
            for table in tables
            if table is not None and table.shape[1] == seeds
        ]
        rows = len(found)
        return float(np.mean(found)), (seeds - 1) * rows / (1 + (rows - 1) / 4)


def speeds(records: Iterable[dict]) -> dict[str, list[float]]:
    """Log speed-ups of each document that was timed (of decoding: kind and document), one per record."""
    found: dict[str, list[float]] = {}
    for record in records:
        alone = "drafter" in record["spec"] and record["spec"]["drafter"] is None
        for row in record["samples"]:
            if row["pairs"]:
                key = f"{row['kind']}/{row['document']}" if "kind" in row else row["document"]
                logs = [math.log(pair["reference"] / pair["arm"]) for pair in row["pairs"]]
                found.setdefault(key, []).append(0.0 if alone else middle(logs))
    return found


def later_speeds(records: Iterable[dict]) -> dict[str, list[float]]:
    """The same of what follows the first token, where the reference tells when it came."""
    found: dict[str, list[float]] = {}
    for record in records:
        for row in record["samples"]:
            if row["target_forwards"] and all(pair["reference_first"] for pair in row["pairs"]):
                logs = [
                    math.log(
                        (pair["reference"] - pair["reference_first"]) / (pair["arm"] - pair["arm_first"])
                    )
                    for pair in row["pairs"]
                ]
                found.setdefault(f"{row['kind']}/{row['document']}", []).append(middle(logs))
    return found


def prices_of(record: Mapping[str, Any], later: bool = False) -> dict[str, float]:
    """Priced log speed-up of each replayed prompt; with `later`, of what follows the first token."""
    found = {}
    for row in record["totals"].get("replays", ()):
        own, reference = row["rounds"], row["reference_rounds"]
        if not later:
            own, reference = own + row["first"], reference + row["reference_first"]
        if own:
            found[f"{row['kind']}/{row['document']}"] = math.log(reference / own)
    return found


class Region(NamedTuple):
    """A word about an effect, and the open region in which it says that the effect lies."""

    word: str
    low: float
    high: float


def regions(level: str, measure: str, thresholds: Mapping[str, float]) -> list[Region]:
    """Words about an effect, in the order in which they are tried; a gain is positive for speed alone."""
    same, strong = (thresholds[f"{measure}_{name}"] for name in ("same", "strong"))
    if measure == "speed":
        same, strong = math.log(same), math.log(strong)
    inf = math.inf
    if level == "same":
        return [
            Region("as_expected", -same, same),
            Region("different", same, inf),
            Region("different", -inf, -same),
        ]
    words = [Region("opposite", -inf, 0.0), Region("no_difference", -same, same)]
    if level.endswith("_strong"):
        words = [
            Region("as_expected", strong, inf),
            Region("smaller", 0.0, strong),
            *words,
            Region("smaller_if_any", -inf, strong),
        ]
    else:
        words = [Region("as_expected", 0.0, inf), *words]
    rises = level.startswith("up") == (measure == "speed")
    return words if rises else [Region(word, -high, -low) for word, low, high in words]


def predictions(experiment: Mapping[str, Any]) -> list[dict[str, Any]]:
    expect = {"quality": None, "text": None, "retrieval": None, "speed": None} | dict(experiment["expect"])
    orderings = {"above": "up", "below": "down", "about": "same", "less_traffic": "down"}
    quality, versus = expect["quality"], experiment["versus"]
    found: list[tuple[str, str, str | None]] = []
    if quality == "crash":
        found.append(("crash", "down", versus))
    elif quality and experiment["method"] == "dynatree":
        found.append(("exact", "same", versus))
    usual = quality if experiment["method"] == "sdtp" and quality != "crash" else None
    found += [
        (aspect, level, versus)
        for aspect, level in (
            ("text", expect["text"] or usual),
            ("retrieval", expect["retrieval"] or usual),
            ("speed", expect["speed"]),
        )
        if level
    ]
    found += [(name, level, other) for name, level in orderings.items() for other in expect.get(name, ())]
    return [
        {"experiment": experiment["id"], "aspect": aspect, "level": level, "against": against}
        for aspect, level, against in found
    ]


def decisions(study: Study) -> list[dict[str, Any]]:
    """Every prediction with its kind and outcome; confirmatory ones that were read also as they were read."""
    made = [item for experiment in study.experiments.values() for item in predictions(experiment)]
    for item in made:
        item |= {"kind": _kind(study, item), "outcome": None}
    family = [item for item in made if item["kind"] == "confirmatory"]
    if family:
        _read(study, family)
    for item in made:
        if item["kind"] == "counted":
            item["outcome"] = _counted(study, item)
    return made


def _read(study: Study, family: Sequence[dict[str, Any]]) -> None:
    """Rule S at each look that is reached."""
    thresholds = study.settings["thresholds"]
    words = [regions(item["level"], MEASURED[item["aspect"]], thresholds) for item in family]
    looks = _looks(study)
    left = set(range(len(family)))
    readings: dict[int, dict[str, Any]] = {}
    for number, (look, alpha) in enumerate(looks, start=1):
        means = [_at(study, item, look) for item in family]
        p_values = [
            1.0 if mean is None else max(mean.p(cut) for cut in _cuts(own))
            for mean, own in zip(means, words, strict=True)
        ]
        due = [place for place in left if readings.get(place, {}).get("outcome") is None and means[place]]
        at = _step_down(p_values, left, alpha)
        for place in due:
            mean, r = means[place], at[place]
            ends = mean.interval(alpha / r)
            said = next(
                (own for own in words[place] if ends and own.low < ends[0] and ends[1] < own.high), None
            )
            bounds = [cut for cut in (said or ())[1:] if math.isfinite(cut)]
            p = max(map(mean.p, bounds)) if said else p_values[place]
            readings[place] = {
                "outcome": said.word if said else None,
                "effect": mean.value,
                "low": ends[0] if ends else None,
                "high": ends[1] if ends else None,
                "p": p_values[place],
                "p_adjusted": min(1.0, r * p),
                "comparisons": r,
                "look": number,
                "region": said,
            }
    floors = _noise(study)
    for place, item in enumerate(family):
        if (
            study.status(item["experiment"]) != "ok"
            or study.differences(item["experiment"], item["against"], MEASURED[item["aspect"]]) is None
        ):
            continue
        read = readings.get(place, {"outcome": None})
        region = read.pop("region", None)
        if region is not None and MEASURED[item["aspect"]] == "speed":
            floor = floors.get(study.experiments[item["experiment"]]["method"], 0.0)
            if (region.low >= 0 or region.high <= 0) and abs(read["effect"]) < floor:
                read["outcome"] = None
        item |= read | {"outcome": read["outcome"] or "not_resolved"}


def _looks(study: Study) -> list[tuple[dict | None, float]]:
    looks = study.settings["looks"]
    if not looks:
        return [(None, study.alpha)]
    if "baseline" not in study.experiments:
        return [(look, look["alpha"]) for look in looks]
    tables = {"documents": study.table("baseline", "text"), "retrieval": study.table("baseline", "retrieval")}
    there = {key: 0 if table is None else len(table.rows) for key, table in tables.items()}
    return [(look, look["alpha"]) for look in looks if any(look[key] <= there[key] for key in there)]


def _at(study: Study, item: Mapping[str, Any], look: Mapping | None) -> Mean | None:
    """The effect at a look; decoding is read on all its prompts at each."""
    measure, first = MEASURED[item["aspect"]], None
    if look is not None and study.experiments[item["experiment"]]["method"] == "sdtp":
        first = look["retrieval" if measure == "retrieval" else "documents"]
    return study.effect(item["experiment"], item["against"], measure, first)


def _cuts(words: Iterable[Region]) -> set[float]:
    return {end for word in words for end in word[1:] if math.isfinite(end)}


def _step_down(p_values: Sequence[float], left: set[int], alpha: float) -> dict[int, int]:
    """Take what is settled out of `left`; at which number of predictions each was settled or left over."""
    at: dict[int, int] = {}
    while True:
        r = max(1, len(left))
        at |= dict.fromkeys(left, r)
        settled = {place for place in left if p_values[place] <= alpha / r}
        if not settled:
            return at
        left -= settled


def _untimed(study: Study, name: str | None) -> bool:
    if name not in study.experiments or study.experiments[name]["method"] != "sdtp":
        return False
    found = study.found(name)
    return study.status(name) != "not_run" and all(record["spec"]["timing"] is None for record in found)


def _kind(study: Study, item: Mapping[str, Any]) -> str:
    name, aspect = item["experiment"], item["aspect"]
    sides = (name, item["against"])
    measure = MEASURED.get(aspect)
    if measure is None or (measure == "speed" and any(_untimed(study, side) for side in sides)):
        return "counted"
    found = study.found(name)
    unasked = aspect == "retrieval" and found and found[0]["spec"]["retrieval"] is None
    chosen = study.confirmatory[study.experiments[name]["method"]]
    return "exploratory" if unasked or name not in chosen else "confirmatory"


def _counted(study: Study, item: dict[str, Any]) -> str | None:
    name, aspect, other = item["experiment"], item["aspect"], item["against"]
    if aspect == "crash":
        return {"crashed": "as_expected", "ok": "opposite"}.get(study.status(name))
    own = study.records(name)
    if not own:
        return None
    if aspect == "exact":
        same = all(row["matched"] or row["ties"] for row in own[0]["samples"])
        return "as_expected" if same else "different"
    theirs = study.records(other) if other in study.experiments else []
    if other is not None and not theirs:
        return None
    if aspect == "less_traffic":
        sent, beside = (_sent(records[0]) for records in (own, theirs))
        if sent is None or beside is None:
            return None
        return "no_difference" if sent == beside else "as_expected" if sent < beside else "opposite"
    beside = _flops(theirs, "prefill_flops") if theirs else _flops(own, "reference_prefill_flops")
    item["effect"] = effect = math.log(beside / _flops(own, "prefill_flops"))
    thresholds = study.settings["thresholds"]
    if abs(effect) <= math.log(thresholds["speed_same"]):
        effect = 0.0
    words = regions(item["level"], "speed", thresholds)
    return next((word for word, low, high in words if low < effect < high), "not_resolved")


def _flops(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([record["totals"][name] for record in records]))


def _sent(record: Mapping[str, Any]) -> float | None:
    """Mean bytes over all boundaries."""
    sums = [sum(row["boundary_bytes"]) for row in record["samples"] if row["boundary_bytes"]]
    return float(np.mean(sums)) if sums else None


def _noise(study: Study) -> dict[str, float]:
    """95th percentile of how far a reference is from its second run, by method, each document once."""
    found: dict[str, set[tuple[str, float]]] = {}
    for name, experiment in study.experiments.items():
        for record in study.found(name):
            for row in record["samples"]:
                logs = [math.log(pair["reference"] / pair["again"]) for pair in row["pairs"] if pair["again"]]
                if logs:
                    found.setdefault(experiment["method"], set()).add((row["document"], middle(logs)))
    return {
        method: float(np.percentile([abs(noise) for _, noise in runs], 95)) for method, runs in found.items()
    }
