"""Two experiments, or two finished studies, side by side."""

from collections.abc import Mapping
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.study.arms import Arm, comparable, read_arm, resampling
from ablations.study.contracts.paper import Experiment, PaperPlan, PaperSettings
from ablations.study.contracts.statistics import Estimate, Measure
from ablations.study.errors import UserError
from ablations.study.planning.stages import COLLECT_STAMP
from ablations.study.record_io import read_contract
from ablations.study.statistics import compare, estimate

MEASURES: tuple[Measure, ...] = ("quality", "speed")
NOTHING = "-"


def read_study(folder: Path) -> PaperPlan:
    """What a finished study in `folder` consists of (the folder in which `results/` lies).

    Raises:
        UserError: no study was planned there.
    """
    stamp = folder / COLLECT_STAMP
    if not stamp.is_file():
        raise UserError(f"{stamp}: missing, so {folder} holds no study; name the folder that has results/")
    return read_contract(stamp, PaperPlan)


def compare_experiments(one: Experiment, other: Experiment, settings: PaperSettings) -> str:
    """A table of two experiments of one study, and where their specs differ.

    Raises:
        UserError: one was not measured, or they are of different methods.
    """
    if one.method != other.method:
        raise UserError(f"{one.id} is of {one.method}, {other.id} of {other.method}; compare like with like")
    first, second = _measured(one), _measured(other)
    arms = [first, second]
    names = [one.id, other.id]
    specs = [_flat(arm.record.spec.model_dump(mode="json")) for arm in arms]
    rows = {
        key: [str(spec.get(key, NOTHING)) for spec in specs] + [""]
        for key in dict.fromkeys([*specs[0], *specs[1]])
        if specs[0].get(key) != specs[1].get(key)
    }
    for measure in MEASURES:
        if cells := _cells(measure, first, second, settings):
            rows[f"{measure} ({_unit(measure)})"] = cells
    for name in ("device", "git_commit", "measured_at"):
        rows[name] = [str(getattr(arm.record.environment, name)) for arm in arms] + [""]
    difference = f"{names[0]} against {names[1]}"
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, difference]).to_string()


def compare_studies(one: Path, other: Path) -> str:
    """A table of every experiment of two studies, measured here and there.

    Raises:
        UserError: a folder holds no study, or a record is damaged.
    """
    plans = [read_study(folder) for folder in (one, other)]
    arms = [_arms(plan, folder) for plan, folder in zip(plans, (one, other), strict=True)]
    rows = {}
    for name in dict.fromkeys([*arms[0], *arms[1]]):
        for measure in MEASURES:
            if cells := _cells(measure, arms[0].get(name), arms[1].get(name), plans[0].settings):
                rows[f"{name} {measure} ({_unit(measure)})"] = cells
    columns = [str(one), str(other), "first against second"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()


def _arms(plan: PaperPlan, folder: Path) -> Mapping[str, Arm]:
    placed = [
        item.model_copy(update={"records": tuple(str(folder / path) for path in item.records)})
        for item in plan.experiments
    ]
    return {item.id: read_arm(item) for item in placed}


def _measured(experiment: Experiment) -> Arm:
    arm = read_arm(experiment)
    if arm.record is None:
        raise UserError(f"{experiment.id} was not measured; run `snakemake --cores 1 {experiment.id}` first")
    return arm


def _cells(measure: Measure, one: Arm | None, other: Arm | None, settings: PaperSettings) -> list[str] | None:
    """Both results and their paired difference; None where neither has any."""
    own, others = (arm.values.get(measure) if arm else None for arm in (one, other))
    if own is None and others is None:
        return None
    chosen = resampling(settings)
    shown = (own, others)
    cells = [NOTHING if series is None else _text(estimate(series, chosen), measure) for series in shown]
    if one is None or other is None or own is None or others is None:
        return [*cells, NOTHING]
    if measure == "speed" and not comparable(one, other):
        return [*cells, f"not compared: {one.device} and {other.device}"]
    found = compare(own, others, chosen, names=(one.experiment.id, other.experiment.id), measure=measure)
    if found is None:
        return [*cells, "no document in common"]
    return [*cells, f"{_text(found.estimate, measure)} p={found.p:.2g} n={found.estimate.n}"]


def _text(result: Estimate, measure: Measure) -> str:
    numbers = [result.value, result.low, result.high]
    if measure == "speed":
        shown = [NOTHING if number is None else f"{exp(number):.2f}" for number in numbers]
    else:
        shown = [NOTHING if number is None else f"{number:+.3f}" for number in numbers]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _unit(measure: Measure) -> str:
    return "nats over the reference" if measure == "quality" else "times the reference"


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found
