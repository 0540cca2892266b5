"""Experiments with their records and their paired results per document."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd

from ablations.core.errors import UserError
from ablations.core.job import read_job
from ablations.core.record import read_record
from ablations.evidence.expectations import Experiment, Method
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.evidence.statistics import ANY_SEED, Endpoint, log_noise, log_speedup, median_seconds
from ablations.specs.dynatree.decode import DecodeSample, DecodeSpec
from ablations.specs.dynatree.replay import PricedReplay
from ablations.specs.sdtp.record import EvaluateSpec, SdtpSample

OutcomeStatus = Literal["ok", "crashed", "not_run"]
"""How an experiment ended."""


class ExperimentRecords(NamedTuple):
    """An experiment, its records (one per seed, missing ones left out), and its results per document.

    Attributes:
        experiment: What the study says of it.
        records: Its records in the order of its seeds.
        values: Results by endpoint, one per document (index, in the order of measurement) and training seed
            (columns; `ANY_SEED` alone where no trained scorer plays a part, and of speed), shape (n, seeds).
            Empty unless all records are there and none crashed.
        priced: What `speed` would be by calibrated costs, one per replayed prompt (index), those that were
            timed among them, shape (N,); None where nothing was replayed.
    """

    experiment: Experiment
    records: tuple[SdtpRecord | DecodeRecord, ...]
    values: dict[Endpoint, pd.DataFrame]
    priced: pd.Series | None = None

    @property
    def status(self) -> OutcomeStatus:
        """How it ended: `crashed` if any seed did, `not_run` if a record is missing."""
        if any(record.outcome.status == "crashed" for record in self.records):
            return "crashed"
        return "ok" if len(self.records) == len(self.experiment.records) else "not_run"

    @property
    def is_autoregressive(self) -> bool:
        """Whether it decodes without a drafter; its speed-up is one by definition."""
        return bool(self.records) and getattr(self.records[0].spec, "drafter", "none") is None

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
    return arm_of(experiment, tuple(read_record(path, record_type) for path in paths))


def arm_of(experiment: Experiment, records: tuple[SdtpRecord | DecodeRecord, ...]) -> ExperimentRecords:
    """An experiment with the records there are of it, in the order of its seeds.

    Raises:
        UserError: a record is of another method, or has no or repeated documents.
    """
    arm = ExperimentRecords(experiment, records, {})
    if arm.status != "ok":
        return arm
    for path, record in zip(experiment.records, records, strict=True):
        _check_complete(path, record)
    if experiment.method == "sdtp":
        values = _sdtp_values(experiment, cast(tuple[SdtpRecord, ...], records))
        return arm._replace(values=values)
    record = cast(DecodeRecord, records[0])
    return arm._replace(
        values=_decoding_values(record, experiment.records[0]), priced=_priced(record.totals.replays)
    )


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


def noise_floors(arms: Iterable[ExperimentRecords]) -> dict[Method, float]:
    """The 95th percentile of the noise of timing by method: sizes of `log_noise` over documents, each once.

    Methods whose references did not run twice in a round are left out.
    """
    found: dict[Method, set[tuple[str, float]]] = {}
    for arm in arms:
        if own := repeated_references(arm):
            found.setdefault(arm.experiment.method, set()).update(own)
    return {
        method: float(np.quantile(np.abs([noise for _, noise in own]), 0.95)) for method, own in found.items()
    }


def repeated_references(arm: ExperimentRecords) -> set[tuple[str, float]]:
    """Documents of an arm whose reference ran twice in a round, each with its `log_noise`.

    Experiments that were measured side by side have the same ones.
    """
    samples = (sample for record in arm.records for sample in record.samples)
    noises = ((sample.document, log_noise(sample.pairs)) for sample in samples)
    return {(document, noise) for document, noise in noises if noise is not None}


def per_document(records: Iterable[SdtpRecord], value: Callable[[SdtpSample], float]) -> pd.DataFrame:
    """A value of each document (index) that all records have, by record (columns), shape (n, records)."""
    return _table([{sample.document: value(sample) for sample in record.samples} for record in records])


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


def _check_complete(path: str, record: SdtpRecord | DecodeRecord) -> None:
    if not record.samples or record.totals is None:
        raise UserError(f"{path}: an experiment that ended well has samples and totals; delete the record")
    _check_distinct(path, map(_document_name, record.samples))
    _check_distinct(path, (probe.document for probe in getattr(record.totals, "retrieval", ())))
    _check_distinct(path, map(_document_name, getattr(record.totals, "replays", ())))


def _check_distinct(path: str, documents: Iterable[str]) -> None:
    for name, count in Counter(documents).most_common(1):
        if count > 1:
            raise UserError(f"{path}: document '{name}' occurs twice; delete the record")


def _document_name(sample: SdtpSample | DecodeSample | PricedReplay) -> str:
    return sample.document if isinstance(sample, SdtpSample) else f"{sample.kind}/{sample.document}"


def _sdtp_values(experiment: Experiment, records: tuple[SdtpRecord, ...]) -> dict[Endpoint, pd.DataFrame]:
    tables = {
        "text": per_document(records, lambda sample: sample.kl),
        "retrieval": _table(
            [{probe.document: probe.nll for probe in record.totals.retrieval} for record in records]
        ),
    }
    values: dict[Endpoint, pd.DataFrame] = {}
    for endpoint, table in tables.items():
        if not table.empty:
            values[cast(Endpoint, endpoint)] = (
                table.set_axis(list(experiment.seeds), axis=1)
                if experiment.seeds
                else table.mean(axis=1).to_frame(ANY_SEED)
            )
    if timed := timed_samples(records):
        speeds = pd.Series(
            [log_speedup(sample.pairs) for sample in timed], [sample.document for sample in timed]
        )
        # Where several seeds were timed, the speed of a document is their mean.
        values["speed"] = speeds.groupby(level=0, sort=False).mean().to_frame(ANY_SEED)
    return values


def _decoding_values(record: DecodeRecord, path: str) -> dict[Endpoint, pd.DataFrame]:
    names = [_document_name(sample) for sample in record.samples]
    if record.spec.drafter is None:
        speeds = [0.0] * len(names)
    elif record.spec.reference == "autoregressive":
        speeds = [log_speedup(sample.pairs) for sample in record.samples]
    else:
        raise UserError(f"{path}: a drafting arm must be measured beside autoregressive decoding")
    return {"speed": pd.DataFrame({ANY_SEED: speeds}, index=names)}


def _priced(replays: Sequence[PricedReplay]) -> pd.Series | None:
    """Priced log speed-up of each replayed prompt."""
    if not replays:
        return None
    names = [_document_name(replay) for replay in replays]
    return pd.Series([priced_speedup(replay) for replay in replays], names)


def priced_speedup(replay: PricedReplay) -> float:
    """Log speed-up of a whole generation by its prices."""
    return math.log((replay.reference_first + replay.reference_rounds) / (replay.first + replay.rounds))


def _table(columns: list[dict[str, float]]) -> pd.DataFrame:
    """Columns by the documents that all of them have, in the order of the first, shape (n, columns)."""
    # Dictionaries: pandas takes ten times as long to align the records of ten seeds.
    shared = [document for document in columns[0] if all(document in column for column in columns)]
    return pd.DataFrame([[column[document] for column in columns] for document in shared], index=shared)
