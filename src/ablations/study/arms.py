"""An experiment with its records and its paired results per document."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablations.study.contracts.dynatree import DecodeSample, DecodeSpec, DecodeTotals
from ablations.study.contracts.paper import Experiment, Method, PaperSettings
from ablations.study.contracts.record import Record
from ablations.study.contracts.sdtp import EvaluateSpec, SdtpSample, SdtpTotals
from ablations.study.contracts.statistics import Measure, Resampling
from ablations.study.errors import UserError
from ablations.study.record_io import read_record
from ablations.study.statistics import log_speedup
from ablations.study.verdicts import OutcomeStatus

SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]
DecodeRecord = Record[DecodeSpec, DecodeSample, DecodeTotals]


class Arm(NamedTuple):
    """An experiment, its records (one per seed, missing ones left out), and its results per document."""

    experiment: Experiment
    records: tuple[SdtpRecord | DecodeRecord, ...]
    values: dict[Measure, pd.Series]

    @property
    def status(self) -> OutcomeStatus:
        """How it ended, all seeds together."""
        if any(record.outcome.status == "crashed" for record in self.records):
            return "crashed"
        return "ok" if len(self.records) == len(self.experiment.records) else "not_run"

    @property
    def device(self) -> str | None:
        """Device on which it was timed; None if it was not."""
        timed = (record for record in self.records if any(sample.pairs for sample in record.samples))
        return next((record.environment.device for record in timed), None)

    @property
    def record(self) -> SdtpRecord | DecodeRecord | None:
        """The record that says what ran; None where there is none."""
        return self.records[0] if self.records else None


def read_arm(experiment: Experiment) -> Arm:
    """Read the records of an experiment.

    Raises:
        UserError: a record is damaged, is of another method, or has no or repeated documents.
    """
    record_type = SdtpRecord if experiment.method == "sdtp" else DecodeRecord
    paths = [path for path in map(Path, experiment.records) if path.is_file()]
    records = tuple(read_record(path, record_type) for path in paths)
    arm = Arm(experiment, records, {})
    if arm.status != "ok":
        return arm
    for path, record in zip(paths, records, strict=True):
        _check_complete(path, record)
    values = _sdtp_values(records) if experiment.method == "sdtp" else _decoding_values(records[0], paths[0])
    return arm._replace(values=values)


def comparable(one: Arm, other: Arm) -> bool:
    """Whether the speeds of two arms may be compared: no device of theirs differs."""
    return one.device == other.device or None in (one.device, other.device)


def per_document(records: Iterable[SdtpRecord], value: Callable[[SdtpSample], float]) -> pd.Series:
    """A value of each document (index), a mean over the records that have it."""
    # Plain maps: a study of many seeds aligns thousands of records.
    rows = [{sample.document: value(sample) for sample in record.samples} for record in records]
    shared = [document for document in rows[0] if all(document in row for row in rows)]
    return pd.Series(np.mean([[row[document] for document in shared] for row in rows], axis=0), shared)


def added_nll(sample: SdtpSample) -> float:
    """NLL minus the unpruned model's, nats per token."""
    return sample.nll - sample.reference_nll


def timed_samples(records: Iterable[SdtpRecord]) -> list[SdtpSample]:
    """Samples that were timed; one record of an experiment has them."""
    return [sample for record in records for sample in record.samples if sample.pairs]


def mean_seconds(samples: Iterable[Any], side: str) -> float:
    """Mean over samples of the geometric mean over repeats."""
    return float(
        np.mean([np.exp(np.mean([np.log(getattr(pair, side)) for pair in item.pairs])) for item in samples])
    )


def first_arm(arms: Mapping[str, Arm], method: Method, preferred: str) -> Arm | None:
    """The preferred arm where it ran to the end, else the first that did, else the first with a record."""
    recorded = [arm for arm in arms.values() if arm.records and arm.experiment.method == method]
    ranked = sorted(recorded, key=lambda arm: (arm.status != "ok", arm.experiment.id != preferred))
    return ranked[0] if ranked else None


def resampling(settings: PaperSettings) -> Resampling:
    """How the paper's intervals are resampled."""
    return Resampling.of(settings)


def _check_complete(path: Path, record: SdtpRecord | DecodeRecord) -> None:
    if not record.samples or record.totals is None:
        raise UserError(f"{path}: an experiment that ended well has samples and totals; delete the record")
    name, times = Counter(_name(sample) for sample in record.samples).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: document '{name}' occurs twice; delete the record")


def _name(sample: SdtpSample | DecodeSample) -> str:
    return f"{sample.kind}/{sample.document}" if isinstance(sample, DecodeSample) else sample.document


def _sdtp_values(records: tuple[SdtpRecord, ...]) -> dict[Measure, pd.Series]:
    values: dict[Measure, pd.Series] = {"quality": per_document(records, added_nll)}
    timed = timed_samples(records)
    if timed:
        speeds = [log_speedup(sample.pairs) for sample in timed]
        # Where several seeds were timed, a document's speed is a mean over them.
        values["speed"] = pd.Series(speeds, [sample.document for sample in timed]).groupby(level=0).mean()
    return values


def _decoding_values(record: DecodeRecord, path: Path) -> dict[Measure, pd.Series]:
    names = [_name(sample) for sample in record.samples]
    if record.spec.drafter is None:
        return {"speed": pd.Series(0.0, index=names)}
    if record.spec.reference != "autoregressive":
        raise UserError(f"{path}: a drafting arm must be measured beside autoregressive decoding")
    return {"speed": pd.Series([log_speedup(sample.pairs) for sample in record.samples], index=names)}
