"""Records read one experiment at a time: what they come to is kept, their samples are not."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import pandas as pd
from tqdm import tqdm

from ablations.evidence.expectations import Experiment, Method
from ablations.evidence.inputs import PaperSettings
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.evidence.records import ExperimentRecords, added_nll, per_document, read_arm
from ablations.paper.collecting.decoding import decoding_result
from ablations.paper.collecting.naming import naming
from ablations.paper.collecting.noise import Repeated, add_repeated
from ablations.paper.collecting.ranking import scorer_of
from ablations.paper.collecting.sdtp import sdtp_result
from ablations.paper.results.decoding import DecodingResult
from ablations.paper.results.sdtp import SdtpResult


class Measured(NamedTuple):
    """The experiments of a study by id, and the results of those that ran to the end."""

    arms: dict[str, ExperimentRecords]
    """Light: a record that is neither timed nor over ranks has one of its samples, one arm of each scorer the
    rankings of all windows, and none its replays."""
    sdtp: dict[str, SdtpResult]
    decoding: dict[str, DecodingResult]
    repeated: dict[Method, Repeated]
    nll: dict[str, pd.DataFrame]
    """NLL over the unpruned model's, nats per token, documents x seeds, of those of SDTP."""


@contextmanager
def without_cycles() -> Iterator[None]:
    """Switch the search for reference cycles off, with which collecting takes 1.15 times as long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_all(experiments: Iterable[Experiment], settings: PaperSettings) -> Measured:
    """Read the records of every experiment; memory grows with their number, not with their samples.

    Raises:
        UserError: a record is damaged, is of another method, or has no or repeated documents.
    """
    found = Measured({}, {}, {}, {}, {})
    scorers: set[str] = set()
    for item in tqdm(list(experiments), desc="records", mininterval=2):
        with naming(item):
            arm = read_arm(item)
            if arm.status == "ok" and item.method == "sdtp":
                found.sdtp[item.id] = sdtp_result(arm, settings)
                found.nll[item.id] = per_document(cast(tuple[SdtpRecord, ...], arm.records), added_nll)
            elif arm.status == "ok":
                found.decoding[item.id] = decoding_result(arm, settings)
        add_repeated(found.repeated, arm)
        scorer = scorer_of(arm)
        records = tuple(_light(record, scorer not in scorers) for record in arm.records)
        found.arms[item.id] = arm._replace(records=records)
        if scorer is not None:
            scorers.add(scorer)
    return found


def _light(record: SdtpRecord | DecodeRecord, rankings: bool) -> SdtpRecord | DecodeRecord:
    """A record with one of its samples where nothing is timed or sent, and, unless `rankings`, one ranking;
    without replays.

    With all samples, collecting 10,000 records takes 2.3 times the memory (tests/workflow/scale.py).
    """
    needed = any(sample.pairs or getattr(sample, "boundary_bytes", ()) for sample in record.samples)
    light: dict[str, Any] = {} if needed else {"samples": record.samples[:1]}
    training = getattr(record.totals, "training", None)
    if training is not None and not rankings:
        one = {name: getattr(training, name)[:1] for name in ("ranking", "ranking_untrained")}
        light["totals"] = record.totals.model_copy(update={"training": training.model_copy(update=one)})
    if getattr(record.totals, "replays", ()):
        # Their prices are in the arm's own table.
        light["totals"] = record.totals.model_copy(update={"replays": ()})
    return record.model_copy(update=light)
