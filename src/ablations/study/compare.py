"""Two experiments, or two finished studies, side by side."""

from collections.abc import Mapping
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.core.errors import UserError
from ablations.core.record import read_contract
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import PaperInput, PaperSettings, resampling
from ablations.evidence.records import ExperimentRecords, comparable, read_arm
from ablations.evidence.statistics import Endpoint, Estimate, compare, estimate
from ablations.study.planning.stages import COLLECT_STAMP

ENDPOINTS: tuple[Endpoint, ...] = ("quality", "speed")
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
    """A table of two experiments of one study: where their specs differ, their results, and the difference.

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
    for endpoint in ENDPOINTS:
        if cells := _cells(endpoint, *arms, settings):
            rows[f"{endpoint} ({_unit(endpoint)})"] = cells
    for name in ("device", "git_commit", "measured_at"):
        rows[name] = [str(getattr(arm.record.environment, name)) for arm in arms] + [""]
    difference = f"{names[0]} against {names[1]}"
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, difference]).to_string()


def compare_studies(first: Path, second: Path) -> str:
    """A table of the experiments of two studies: the results of each study, and the difference.

    Raises:
        UserError: a folder holds no study, or a record is damaged.
    """
    plans = [read_study(folder) for folder in (first, second)]
    arms = [_arms(plan, folder) for plan, folder in zip(plans, (first, second), strict=True)]
    rows = {}
    for name in dict.fromkeys([*arms[0], *arms[1]]):
        for endpoint in ENDPOINTS:
            if cells := _cells(endpoint, arms[0].get(name), arms[1].get(name), plans[0].settings):
                rows[f"{name} {endpoint} ({_unit(endpoint)})"] = cells
    columns = [str(first), str(second), "first against second"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()


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


def _cells(
    endpoint: Endpoint,
    first: ExperimentRecords | None,
    second: ExperimentRecords | None,
    settings: PaperSettings,
) -> list[str] | None:
    """Both results and their paired difference; None where neither arm has a result."""
    values = [arm.values.get(endpoint) if arm else None for arm in (first, second)]
    if all(series is None for series in values):
        return None
    how = resampling(settings)
    cells = [ABSENT if series is None else _text(estimate(series, how), endpoint) for series in values]
    if first is None or second is None or values[0] is None or values[1] is None:
        return [*cells, ABSENT]
    if endpoint == "speed" and not comparable(first, second):
        return [*cells, f"not compared: {first.device} and {second.device}"]
    names = first.experiment.id, second.experiment.id
    comparison = compare(values[0], values[1], how, names=names, measure=endpoint)
    if comparison is None:
        return [*cells, "no document in common"]
    difference = comparison.estimate
    return [*cells, f"{_text(difference, endpoint)} p={comparison.p:.2g} n={difference.n}"]


def _text(result: Estimate, endpoint: Endpoint) -> str:
    numbers = [result.value, result.low, result.high]
    if endpoint == "speed":
        value, low, high = (ABSENT if number is None else f"{exp(number):.2f}" for number in numbers)
    else:
        value, low, high = (ABSENT if number is None else f"{number:+.3f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _unit(endpoint: Endpoint) -> str:
    return "nats over the reference" if endpoint == "quality" else "times the reference"


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested maps by their keys, joined by dots."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
