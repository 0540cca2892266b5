"""Experiments with records that nobody measured, from results per document."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.core.record import Digests, Environment, Outcome
from ablations.evidence.expectations import Expectation, Experiment
from ablations.evidence.join import DecodeRecord, SdtpRecord
from ablations.evidence.records import ExperimentRecords, arm_of
from ablations.specs.dynatree.decode import DecodePair, DecodeSpec, DecodingTotals
from ablations.specs.dynatree.replay import PricedReplay, Replay
from ablations.specs.sdtp.record import EvaluateSpec, SdtpSample, SdtpTotals
from ablations.specs.sdtp.retrieval import RetrievalProbe
from ablations.specs.sdtp.timing import TimedPair
from tests.evidence.series import (
    decode_spec,
    decoded,
    drafted,
    drafting_spec,
    environment,
    evaluate_spec,
    replayed,
)

DIGESTS = Digests(job="record", spec="s", code="c", inputs={}, pins={})
CRASH = Outcome(status="crashed", exception="RuntimeError", message="boom")


def sdtp(
    name: str,
    text: Sequence | np.ndarray = (0.3, 0.4),
    retrieval: Sequence | np.ndarray = (),
    speed: Sequence = (),
    *,
    seeds: tuple[int, ...] = (),
    versus: str | None = "baseline",
    noise: float | None = None,
    flops: float = 600.0,
    boundary_bytes: int | None = None,
    timed: bool | None = None,
    ended: str = "ok",
    device: str = "CPU",
    **expect: Any,
) -> ExperimentRecords:
    """An SDTP experiment.

    Args:
        name: Its id.
        text: KL divergence, shape (documents,) or (documents, seeds).
        retrieval: NLL of answers, shape (prompts,) or (prompts, seeds); empty where it is not measured.
        speed: Log speed-up of the first documents, which the first seed alone has.
        seeds: Training seeds.
        versus: Experiment that it is compared with.
        noise: Log speed-up of the reference over itself; None where it runs once.
        flops: Operations of its prefill; the unpruned one has 1000.
        boundary_bytes: Bytes over a pipeline boundary; None without ranks.
        timed: Whether its spec says that prefill is timed; None where there are speeds.
        ended: `ok`, `crashed` or `not_run`.
        device: Where it was measured.
        **expect: What it predicts, `text`, `retrieval` and `speed` as `text_level` and so on.
    """
    text, retrieval = (np.asarray(values, float) for values in (text, retrieval))
    count = max(1, len(seeds))
    records = []
    for seed in range(count):
        first = seed == 0
        wanted = timed if timed is not None else bool(len(speed))
        spec = evaluate_spec(len(text), len(retrieval), max(1, len(speed)) if first and wanted else 0)
        spec = spec.model_copy(update={"seed": seed})
        if ended == "crashed":
            records.append(_record(SdtpRecord, name, spec, CRASH, (), None, environment(device=device)))
            continue
        samples = tuple(
            _sample(number, _of(row, seed), speed[number] if first and number < len(speed) else None, noise)
            for number, row in enumerate(text)
        )
        if boundary_bytes is not None:
            samples = tuple(
                sample.model_copy(update={"boundary_bytes": (boundary_bytes,)}) for sample in samples
            )
        totals = _totals(flops, [_of(row, seed) for row in retrieval])
        outcome = Outcome(status="ok")
        records.append(_record(SdtpRecord, name, spec, outcome, samples, totals, environment(device=device)))
    experiment = _experiment(name, "sdtp", versus, count, seeds, expect)
    return arm_of(experiment, () if ended == "not_run" else tuple(records))


def decoding(
    name: str,
    speed: Sequence | Mapping[str, Sequence] = (0.0,),
    priced: Mapping[str, Sequence] | None = None,
    *,
    drafts: bool = True,
    versus: str | None = None,
    noise: float | None = None,
    matched: bool = True,
    ties: int = 0,
    ended: str = "ok",
    device: str = "CPU",
    **expect: Any,
) -> ExperimentRecords:
    """A decoding experiment.

    Args:
        name: Its id.
        speed: Log speed-up of each timed prompt, by kind; without kinds all are `code`.
        priced: Log speed-up by price of each replayed prompt, the timed ones first, by kind; None where none
            were replayed.
        drafts: Whether it has a drafter.
        versus: Experiment that it is compared with.
        noise: Log speed-up of the reference over itself; None where it runs once.
        matched: Whether it emitted the target's tokens.
        ties: Departures where it did not.
        ended: `ok`, `crashed` or `not_run`.
        device: Where it was measured.
        **expect: What it predicts.
    """
    speed = speed if isinstance(speed, Mapping) else {"code": speed}
    counts, priced_counts = (
        {kind: len(values) for kind, values in of.items()} for of in (speed, priced or {})
    )
    spec = drafting_spec(counts, priced_counts) if drafts else decode_spec(**counts)
    facts = {"matched": matched, "ties": ties}
    make = drafted if drafts else decoded
    samples = tuple(
        make(number, kind).model_copy(update=facts | {"pairs": (_decode_pair(value, noise),)})
        for kind, values in speed.items()
        for number, value in enumerate(values)
    )
    replays = tuple(
        _priced(number, kind, value)
        for kind, values in (priced or {}).items()
        for number, value in enumerate(values)
    )
    totals = DecodingTotals(tie_margin=0.0, weight_layout="stock", peak_memory_bytes=100, replays=replays)
    outcome, parts = (CRASH, ((), None)) if ended == "crashed" else (Outcome(status="ok"), (samples, totals))
    record = _record(DecodeRecord, name, spec, outcome, *parts, environment(device=device))
    experiment = _experiment(name, "dynatree", versus, 1, (), expect)
    return arm_of(experiment, () if ended == "not_run" else (record,))


def study(*arms: ExperimentRecords) -> dict[str, ExperimentRecords]:
    """Experiments by id."""
    return {arm.experiment.id: arm for arm in arms}


def _of(row: np.ndarray, seed: int) -> float:
    return float(row if row.ndim == 0 else row[seed])


def _sample(number: int, kl: float, speed: float | None, noise: float | None) -> SdtpSample:
    pairs = ()
    if speed is not None:
        again = None if noise is None else math.exp(-noise)
        pairs = (TimedPair(arm=math.exp(-speed), reference=1.0, again=again),)
    return SdtpSample(
        document=f"d{number}",
        prompt_tokens=48,
        nll=2.5,
        reference_nll=2.0,
        agreement=0.9,
        kl=kl,
        living=(48, 24),
        pairs=pairs,
    )


def _totals(flops: float, answers: list[float]) -> SdtpTotals:
    return SdtpTotals(
        keep_ratios=(0.5,),
        prefill_flops=flops,
        reference_prefill_flops=1000.0,
        kv_bytes=300,
        reference_kv_bytes=500,
        retrieval=tuple(
            RetrievalProbe(
                document=f"r{number}",
                kind="passkey",
                depth=0.1,
                hit=False,
                nll=nll,
                reference_hit=True,
                reference_nll=0.1,
            )
            for number, nll in enumerate(answers)
        ),
        weight_layout="stock",
        cores=1,
        peak_memory_bytes=100,
    )


def _decode_pair(speed: float, noise: float | None) -> DecodePair:
    again = None if noise is None else math.exp(-noise)
    return DecodePair(arm=math.exp(-speed), arm_first=0.01, reference=1.0, reference_first=None, again=again)


def _priced(number: int, kind: str, speed: float) -> PricedReplay:
    """A replay priced at a tenth of its seconds until the first token; the reference takes a second."""
    seconds = math.exp(-speed)
    prices = {"first": 0.1 * seconds, "rounds": 0.9 * seconds}
    reference = {"reference_first": 0.1, "reference_rounds": 0.9}
    return PricedReplay(**replayed(number, kind).fields_of(Replay), **prices, **reference)


def _record(
    record_type: type,
    name: str,
    spec: EvaluateSpec | DecodeSpec,
    outcome: Outcome,
    samples: tuple,
    totals: Any,
    where: Environment,
) -> Any:
    return record_type(
        label=name,
        module="synthetic",
        spec=spec,
        outcome=outcome,
        samples=samples,
        totals=totals,
        environment=where,
        digests=DIGESTS,
    )


def _experiment(
    name: str, method: str, versus: str | None, records: int, seeds: tuple[int, ...], expect: dict[str, Any]
) -> Experiment:
    return Experiment(
        id=name,
        method=method,
        title=name,
        section="all",
        change={},
        expect=Expectation(**{key.removesuffix("_level"): value for key, value in expect.items()}),
        versus=versus if name != versus else None,
        records=tuple(f"{name}-{number}.json" for number in range(records)),
        seeds=seeds,
    )
