"""Experiments with their records and their paired results per document."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from ablations.core.errors import UserError
from ablations.core.job import read_job
from ablations.core.record import read_record
from ablations.evidence.expectations import Experiment, Method
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.evidence.statistics import Endpoint, log_speedup, median_seconds
from ablations.evidence.verdicts import OutcomeStatus
from ablations.specs.dynatree.decode import DecodeSample, DecodeSpec
from ablations.specs.sdtp.record import EvaluateSpec, SdtpSample


class ExperimentRecords(NamedTuple):
    """An experiment, its records (one per seed, missing ones left out), and its results per document.

    Attributes:
        experiment: What the study says of it.
        records: Its records in the order of its seeds.
        values: Results by endpoint; each a series of one value per document (index), shape (n,). Empty
            unless all records are there and none crashed.
    """

    experiment: Experiment
    records: tuple[SdtpRecord | DecodeRecord, ...]
    values: dict[Endpoint, pd.Series]

    @property
    def status(self) -> OutcomeStatus:
        """How it ended: `crashed` if any seed did, `not_run` if a record is missing."""
        if any(record.outcome.status == "crashed" for record in self.records):
            return "crashed"
        return "ok" if len(self.records) == len(self.experiment.records) else "not_run"

    @property
    def device(self) -> str | None:
        """Device on which it was timed; None if it was not timed."""
        timed = (record for record in self.records if any(sample.pairs for sample in record.samples))
        return next((record.environment.device for record in timed), None)

    @property
    def record(self) -> SdtpRecord | DecodeRecord | None:
        """Record of the first seed; None where there is no record."""
        return self.records[0] if self.records else None


def read_arm(experiment: Experiment) -> ExperimentRecords:
    """Read the records of an experiment.

    Raises:
        UserError: a record is damaged, is of another method, or has no or repeated documents.
    """
    record_type = SdtpRecord if experiment.method == "sdtp" else DecodeRecord
    paths = [path for path in map(Path, experiment.records) if path.is_file()]
    records = tuple(read_record(path, record_type) for path in paths)
    arm = ExperimentRecords(experiment, records, {})
    if arm.status != "ok":
        return arm
    for path, record in zip(paths, records, strict=True):
        _check_complete(path, record)
    values = _sdtp_values(records) if experiment.method == "sdtp" else _decoding_values(records[0], paths[0])
    return arm._replace(values=values)


def series_of(record: Path) -> tuple[str, ...]:
    """Digests of the series that a record is joined from, by its spec file; none where there is no such file.

    Raises:
        UserError: the spec file is damaged.
    """
    spec, spec_type = record.parent.parent / "spec" / record.name, cast(Any, EvaluateSpec | DecodeSpec)
    return tuple(read_job(spec, spec_type).input_digests.values()) if spec.is_file() else ()


def comparable(first: ExperimentRecords, second: ExperimentRecords) -> bool:
    """Whether the speeds of two arms may be compared: they were not timed on different devices."""
    return first.device == second.device or None in (first.device, second.device)


def per_document(records: Iterable[SdtpRecord], value: Callable[[SdtpSample], float]) -> pd.Series:
    """A value of each document (index) that all records have, averaged over the records, shape (n,)."""
    # Dictionaries: pandas takes ten times as long to align the records of ten seeds.
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
    """Mean over samples of the median over rounds, seconds.

    Args:
        samples: Samples with timed pairs.
        side: Field of a pair (`arm` or `reference`, for example).
    """
    return float(
        np.mean([median_seconds(getattr(pair, side) for pair in sample.pairs) for sample in samples])
    )


def first_arm(
    arms: Mapping[str, ExperimentRecords], method: Method, preferred: str
) -> ExperimentRecords | None:
    """The preferred arm of a method if it finished, else the first that finished, else the first recorded."""
    recorded = [arm for arm in arms.values() if arm.records and arm.experiment.method == method]
    ranked = sorted(recorded, key=lambda arm: (arm.status != "ok", arm.experiment.id != preferred))
    return ranked[0] if ranked else None


def _check_complete(path: Path, record: SdtpRecord | DecodeRecord) -> None:
    if not record.samples or record.totals is None:
        raise UserError(f"{path}: an experiment that ended well has samples and totals; delete the record")
    name, count = Counter(map(_document_name, record.samples)).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: document '{name}' occurs twice; delete the record")


def _document_name(sample: SdtpSample | DecodeSample) -> str:
    return f"{sample.kind}/{sample.document}" if isinstance(sample, DecodeSample) else sample.document


def _sdtp_values(records: tuple[SdtpRecord, ...]) -> dict[Endpoint, pd.Series]:
    values: dict[Endpoint, pd.Series] = {"quality": per_document(records, added_nll)}
    timed = timed_samples(records)
    if timed:
        speeds = [log_speedup(sample.pairs) for sample in timed]
        # Where several seeds were timed, the speed of a document is their mean.
        values["speed"] = pd.Series(speeds, [sample.document for sample in timed]).groupby(level=0).mean()
    return values


def _decoding_values(record: DecodeRecord, path: Path) -> dict[Endpoint, pd.Series]:
    names = [_document_name(sample) for sample in record.samples]
    if record.spec.drafter is None:
        return {"speed": pd.Series(0.0, index=names)}
    if record.spec.reference != "autoregressive":
        raise UserError(f"{path}: a drafting arm must be measured beside autoregressive decoding")
    return {"speed": pd.Series([log_speedup(sample.pairs) for sample in record.samples], index=names)}
