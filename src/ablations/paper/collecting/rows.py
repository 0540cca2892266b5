"""Experiments as rows: what changed, what came out, what the predictions were worth."""

from pathlib import Path
from typing import Any

from ablations.core.record import Outcome
from ablations.evidence.decisions import Decision, decide
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.records import ExperimentRecords
from ablations.evidence.statistics import ANY_SEED, Estimate, differences, estimate
from ablations.paper.collecting.reading import Measured
from ablations.paper.results.files import RecordFile, record_file
from ablations.paper.summary import Difference, Row

# What an experiment changes; budgets and references are reported elsewhere.
_DECODING_COMPONENTS = ("drafter", "shape", "pruning", "adaptation")
_SDTP_COMPONENTS = (
    "importance",
    "layers",
    "keep_ratios",
    "match",
    "preserve",
    "positions",
    "mask",
    "propagation",
    "selection",
    "saliency",
    "pipeline",
)


def make_rows(measured: Measured, settings: PaperSettings) -> tuple[Row, ...]:
    """Every experiment as a row, in the order of the configuration."""
    arms = measured.arms
    parts: dict[str, list[Decision]] = {name: [] for name in arms}
    for decision in decide(arms, settings):
        parts[decision.experiment].append(decision)
    rows = []
    for name, arm in arms.items():
        experiment = arm.experiment
        other = arms.get(experiment.versus or "")
        rows.append(
            Row(
                **experiment.model_dump(include=Row.model_fields.keys() & Experiment.model_fields.keys()),
                files=_files(arm),
                status=arm.status,
                outcome=_outcome(arm),
                differences=_differences(arm, other),
                scorer_shared=_scorer_shared(arm, other),
                sdtp=measured.sdtp.get(name),
                decoding=measured.decoding.get(name),
                nll_effect=_nll_effect(measured, name, settings.thresholds.alpha),
                parts=tuple(parts[name]),
            )
        )
    return tuple(rows)


def _nll_effect(measured: Measured, name: str, alpha: float) -> Estimate | None:
    """By document, a mean over seeds: it stands beside the KL divergence, and nothing is read off it."""
    versus = measured.arms[name].experiment.versus
    own, other = measured.nll.get(name), measured.nll.get(versus or "")
    if own is None or other is None:
        return None
    found = differences(own.mean(axis=1), other.mean(axis=1))
    return None if found.empty else estimate(found[ANY_SEED], alpha)


def _files(arm: ExperimentRecords) -> tuple[RecordFile, ...]:
    # Records that are not there are left out of an arm, which keeps their order.
    records = iter(arm.records)
    found = []
    for path in arm.experiment.records:
        if not Path(path).is_file():
            found.append(RecordFile(path=path))
            continue
        record = next(records)
        found.append(record_file(path, record.environment, record.digests))
    return tuple(found)


def _outcome(arm: ExperimentRecords) -> Outcome | None:
    """The first crash where there is one."""
    outcomes = [record.outcome for record in arm.records]
    return next((item for item in outcomes if item.status == "crashed"), outcomes[0] if outcomes else None)


def _scorer_shared(arm: ExperimentRecords, other: ExperimentRecords | None) -> bool | None:
    if other is None or not arm.records or not other.records:
        return None
    own, theirs = (getattr(item.record.totals, "training", None) for item in (arm, other))
    if own is None or theirs is None:
        return None
    return (own.pruner, own.saliency) == (theirs.pruner, theirs.saliency)


def _differences(arm: ExperimentRecords, other: ExperimentRecords | None) -> tuple[Difference, ...]:
    if other is None or not arm.records or not other.records:
        return ()
    components = _SDTP_COMPONENTS if arm.experiment.method == "sdtp" else _DECODING_COMPONENTS
    found = []
    for name in components:
        one, before = (
            item.record.spec.model_dump(mode="json", include={name})[name] for item in (arm, other)
        )
        inner = isinstance(one, dict) and isinstance(before, dict)
        values: dict[str, tuple[Any, Any]] = (
            {f"{name}.{key}": (before.get(key), one.get(key)) for key in {**one, **before}}
            if inner
            else {name: (before, one)}
        )
        found += [
            Difference(key=key, versus=old, arm=new) for key, (old, new) in values.items() if old != new
        ]
    return tuple(found)
