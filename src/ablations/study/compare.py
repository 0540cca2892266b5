"""Two experiments, or two finished studies, side by side."""

from collections.abc import Mapping
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.core.errors import UserError
from ablations.core.record import read_contract
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import PaperInput, PaperSettings
from ablations.evidence.records import ExperimentRecords, comparable, read_arm
from ablations.evidence.statistics import Comparison, Endpoint, Estimate, compare, estimate
from ablations.study.planning.stages import COLLECT_STAMP

UNITS: Mapping[Endpoint, str] = {
    "text": "KL, nats per token",
    "retrieval": "answer NLL, nats per token",
    "speed": "times the reference",
}
"""Measures, and the unit of each."""
ABSENT = "-"
"""Cell of a value that an experiment does not have."""


def read_study(folder: Path) -> PaperInput:
    """Experiments and settings of the study in `folder`, the one that holds `results/`.

    Raises:
        UserError: no study was planned there.
    """
    stamp = folder / COLLECT_STAMP
    if not stamp.is_file():
        raise UserError(f"{stamp}: missing, so {folder} holds no study; name the folder that has results/")
    return read_contract(stamp, PaperInput)


def compare_experiments(first: Experiment, second: Experiment, settings: PaperSettings) -> str:
    """A table of two experiments of one study: where their specs differ, their results, and the effect.

    Raises:
        UserError: an experiment was not measured, or the two are of different methods.
    """
    if first.method != second.method:
        raise UserError(
            f"{first.id} is of {first.method}, {second.id} of {second.method}; compare like with like"
        )
    arms = _measured(first), _measured(second)
    names = [first.id, second.id]
    specs = [_flat(arm.record.spec.model_dump(mode="json")) for arm in arms]
    rows = {
        key: [str(spec.get(key, ABSENT)) for spec in specs] + [""]
        for key in dict.fromkeys([*specs[0], *specs[1]])
        if specs[0].get(key) != specs[1].get(key)
    }
    for endpoint, unit in UNITS.items():
        if cells := _cells(endpoint, *arms, settings.thresholds.alpha):
            rows[f"{endpoint} ({unit})"] = cells
    for name in ("device", "git_commit", "measured_at"):
        rows[name] = [str(getattr(arm.record.environment, name)) for arm in arms] + [""]
    return _table(rows, [*names, f"{names[0]} against {names[1]}"], settings)


def compare_studies(first: Path, second: Path) -> str:
    """A table of the experiments of two studies: the results of each study, and the effect.

    Raises:
        UserError: a folder holds no study, or a record is damaged.
    """
    plans = [read_study(folder) for folder in (first, second)]
    arms = [_arms(plan, folder) for plan, folder in zip(plans, (first, second), strict=True)]
    settings = plans[0].settings
    rows = {}
    for name in dict.fromkeys([*arms[0], *arms[1]]):
        for endpoint, unit in UNITS.items():
            pair = arms[0].get(name), arms[1].get(name)
            if cells := _cells(endpoint, *pair, settings.thresholds.alpha):
                rows[f"{name} {endpoint} ({unit})"] = cells
    return _table(rows, [str(first), str(second), "first against second"], settings)


def _arms(plan: PaperInput, folder: Path) -> Mapping[str, ExperimentRecords]:
    experiments = [
        experiment.model_copy(update={"records": tuple(str(folder / path) for path in experiment.records)})
        for experiment in plan.experiments
    ]
    return {experiment.id: read_arm(experiment) for experiment in experiments}


def _measured(experiment: Experiment) -> ExperimentRecords:
    arm = read_arm(experiment)
    if arm.record is None:
        raise UserError(f"{experiment.id} was not measured; run `snakemake --cores 1 {experiment.id}` first")
    return arm


def _table(rows: dict[str, list[str]], columns: list[str], settings: PaperSettings) -> str:
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()
    covered = f"{100 * (1 - settings.thresholds.alpha):g} %"
    return f"{table}\n{covered} intervals and p-values of one comparison each, unadjusted; no decisions."


def _cells(
    endpoint: Endpoint, first: ExperimentRecords | None, second: ExperimentRecords | None, alpha: float
) -> list[str] | None:
    """Both results and the paired effect; None where neither arm has a result."""
    values = [arm.values.get(endpoint) if arm else None for arm in (first, second)]
    if all(table is None for table in values):
        return None
    cells = [
        ABSENT if table is None else _result(endpoint, estimate(table.mean(axis=1), alpha))
        for table in values
    ]
    if first is None or second is None or values[0] is None or values[1] is None:
        return [*cells, ABSENT]
    if endpoint == "speed" and not comparable(first, second):
        return [*cells, f"not compared: {first.device} and {second.device}"]
    names = first.experiment.id, second.experiment.id
    comparison = compare(values[0], values[1], alpha, names=names, measure=endpoint)
    return [*cells, _effect(comparison) if comparison else "no document in common"]


def _effect(comparison: Comparison) -> str:
    effect, seeds = comparison.estimate, comparison.seeds
    counted = f"p={comparison.p:.2g} n={effect.n}" + (f" seeds={seeds}" if seeds > 1 else "")
    return f"{_result(comparison.measure, effect)} {counted}"


def _result(endpoint: Endpoint, result: Estimate) -> str:
    numbers = [result.value, result.low, result.high]
    if endpoint == "speed":
        value, low, high = (ABSENT if number is None else f"{exp(number):.2f}" for number in numbers)
    else:
        value, low, high = (ABSENT if number is None else f"{number:+.3f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested maps by their keys, joined by dots."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
