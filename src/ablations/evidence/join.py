"""Job: join the record of an experiment from the blocks of its series; nothing is measured.

A record holds the first items of each series, as many as its spec counts. Where the measured method crashed
on one of them, the record is that crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from ablations.core.block import Joined, read_series
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.core.record import (
    AnyRecord,
    Digests,
    Environment,
    Record,
    digests_of,
    write_record,
)
from ablations.specs.dynatree.costs import read_costs
from ablations.specs.dynatree.decode import DecodeSample, DecodeSeries, DecodeSpec, DecodingTotals
from ablations.specs.dynatree.exactness import DecodeTotals
from ablations.specs.dynatree.replay import (
    COSTS,
    REPLAYED,
    PricedReplay,
    Replay,
    ReplaySeries,
    ReplayTotals,
)
from ablations.specs.sdtp.evaluate import (
    PrefillSample,
    PrefillSeries,
    RetrievalSeries,
    SeriesTotals,
    TextSample,
    TextSeries,
)
from ablations.specs.sdtp.record import EvaluateSpec, SdtpSample, SdtpTotals
from ablations.specs.sdtp.retrieval import RetrievalProbe

SdtpRecord = Record[EvaluateSpec, SdtpSample, SdtpTotals]
DecodeRecord = Record[DecodeSpec, DecodeSample, DecodingTotals]

TextBlock = Record[TextSeries, TextSample, SeriesTotals]
RetrievalBlock = Record[RetrievalSeries, RetrievalProbe, SeriesTotals]
PrefillBlock = Record[PrefillSeries, PrefillSample, SeriesTotals]
DecodeBlock = Record[DecodeSeries, DecodeSample, DecodeTotals]
ReplayBlock = Record[ReplaySeries, Replay, ReplayTotals]


class Joining:
    """The series of one record while it is joined.

    Args:
        label: Id of the experiment; None where it has none.
        digests: Digests of the record; its inputs are the series, by name.
        folders: Folder of the blocks of each series, by name.
    """

    def __init__(self, label: str | None, digests: Digests, folders: Mapping[str, Path]) -> None:
        self.label = label
        self.digests = digests
        self.folders = folders

    def read(self, name: str, count: int, block_type: type[AnyRecord]) -> Joined[AnyRecord]:
        """The first `count` items of series `name`.

        Raises:
            UserError: an item is not measured, or a block is damaged or of another series.
        """
        series = read_series(self.folders[name], count, block_type)
        if any(block.digests.job != self.digests.inputs[name] for block in series.blocks):
            raise UserError(f"{self.folders[name]}: blocks of another experiment; {self.again}")
        return series

    @property
    def again(self) -> str:
        """What to do where blocks do not go together."""
        return f"run `python -m ablations.study forget {self.label or self.digests.job}`, then snakemake"

    def record(
        self,
        series: Sequence[Joined],
        record_type: type[AnyRecord],
        spec: EvaluateSpec | DecodeSpec,
        samples: Iterable[SdtpSample | DecodeSample],
        totals: SdtpTotals | DecodingTotals,
    ) -> AnyRecord:
        """The record of series none of which crashed.

        Raises:
            UserError: blocks were measured on unlike devices or with unlike layouts of the weights.
        """
        blocks = [block for one in series for block in one.blocks]
        self._require_alike("measured on", [block.environment.device for block in blocks])
        self._require_alike("weights laid out as", [block.totals.weight_layout for block in blocks])
        return self._record(record_type, spec, blocks, tuple(samples), totals)

    def crash(
        self, series: Iterable[Joined], record_type: type[AnyRecord], spec: EvaluateSpec | DecodeSpec
    ) -> AnyRecord | None:
        """The record of the first of the series that crashed; None where none did."""
        crashed = next((one for one in series if one.crashed), None)
        return self._record(record_type, spec, crashed.blocks, (), None) if crashed else None

    def _record(
        self,
        record_type: type[AnyRecord],
        spec: EvaluateSpec | DecodeSpec,
        blocks: Sequence[Record],
        samples: tuple,
        totals: SdtpTotals | DecodingTotals | None,
    ) -> AnyRecord:
        return record_type(
            label=self.label,
            module=blocks[0].module,
            spec=spec,
            outcome=blocks[0].outcome,
            samples=samples,
            totals=totals,
            environment=_environment([block.environment for block in blocks]),
            digests=self.digests,
        )

    def _require_alike(self, what: str, values: Sequence[str]) -> None:
        other = next((value for value in values if value != values[0]), None)
        if other is not None:
            raise UserError(
                f"{self.label or self.digests.job}: {what} '{values[0]}' in one block, '{other}' in another;"
                f" {self.again}"
            )


def sdtp_record(
    spec: EvaluateSpec, label: str | None, digests: Digests, folders: Mapping[str, Path]
) -> tuple[SdtpRecord, list[dict]]:
    """The record of an SDTP experiment, and its bulky rows.

    Args:
        spec: What the record is of.
        label: Id of the experiment.
        digests: Digests of the record.
        folders: Folder of the blocks of `text`, `retrieval` (where it is measured) and `prefill`
            (where prefill is timed).

    Raises:
        UserError: an item is not measured, a block is damaged, or blocks do not go together.
    """
    joining = Joining(label, digests, folders)
    text = joining.read("text", spec.windows.documents, TextBlock)
    series: list[Joined] = [text]
    probes: tuple[RetrievalProbe, ...] = ()
    timed: tuple[PrefillSample, ...] = ()
    if spec.retrieval is not None:
        series.append(joining.read("retrieval", spec.retrieval.count, RetrievalBlock))
        probes = series[-1].samples
    if spec.timing is not None:
        series.append(joining.read("prefill", spec.timing.documents, PrefillBlock))
        timed = series[-1].samples
    if crash := joining.crash(series, SdtpRecord, spec):
        return crash, []
    if any(sample.document != text.samples[item].document for item, sample in enumerate(timed)):
        raise UserError(f"{folders['prefill']}: other documents than in {folders['text']}; {joining.again}")
    samples = [
        _sdtp_sample(spec, sample, timed[item] if item < len(timed) else None)
        for item, sample in enumerate(text.samples)
    ]
    facts = text.blocks[0].totals
    totals = SdtpTotals(
        keep_ratios=facts.keep_ratios,
        prefill_flops=fmean(sample.flops for sample in text.samples),
        reference_prefill_flops=facts.reference_prefill_flops,
        kv_bytes=fmean(sample.kv_bytes for sample in text.samples),
        reference_kv_bytes=facts.reference_kv_bytes,
        training=facts.training,
        calibration=facts.calibration,
        retrieval=probes,
        weight_layout=facts.weight_layout,
        cores=facts.cores,
        peak_memory_bytes=_peak_memory(series),
    )
    return joining.record(series, SdtpRecord, spec, samples, totals), _rows(series)


def decoding_record(
    spec: DecodeSpec, label: str | None, digests: Digests, paths: Mapping[str, Path]
) -> tuple[DecodeRecord, list[dict]]:
    """The record of a decoding experiment, and its bulky rows.

    Args:
        spec: What the record is of.
        label: Id of the experiment.
        digests: Digests of the record.
        paths: Folder of the blocks of each kind of prompts; where prompts are replayed, also that of each
            kind's replays (`replayed_` and the kind), and the manifest of the drafter's `costs`.

    Raises:
        UserError: an item is not measured, a block is damaged, or blocks do not go together.
    """
    joining = Joining(label, digests, paths)
    timed = [joining.read(prompts.kind, prompts.count, DecodeBlock) for prompts in spec.prompts]
    replayed = [
        joining.read(f"{REPLAYED}{prompts.kind}", prompts.count, ReplayBlock) for prompts in spec.replayed
    ]
    if crash := joining.crash([*timed, *replayed], DecodeRecord, spec):
        return crash, []
    samples = tuple(chain.from_iterable(one.samples for one in timed))
    replays = tuple(chain.from_iterable(one.samples for one in replayed))
    known = {(replay.kind, replay.document): replay for replay in replays}
    for sample in samples if replays else ():
        if (sample.kind, sample.document) not in known:
            other = f"{paths[REPLAYED + sample.kind]}: other prompts than in {paths[sample.kind]}"
            raise UserError(f"{other}; {joining.again}")
    totals = DecodingTotals(
        tie_margin=max(block.totals.tie_margin for one in timed for block in one.blocks),
        weight_layout=timed[0].blocks[0].totals.weight_layout,
        peak_memory_bytes=_peak_memory(timed),
        replays=_priced(spec, replays, paths),
        unlike=_unlike(samples, known),
    )
    record = joining.record([*timed, *replayed], DecodeRecord, spec, samples, totals)
    return record, _rows(timed)


def _priced(
    spec: DecodeSpec, replays: Sequence[Replay], paths: Mapping[str, Path]
) -> tuple[PricedReplay, ...]:
    if not replays:
        return ()
    costs = read_costs(paths[COSTS])
    found = []
    for replay in replays:
        own, reference = costs.price(replay, spec.growth), costs.autoregressive(replay)
        found.append(
            PricedReplay(
                **replay.fields_of(Replay),
                first=own.first,
                rounds=own.rounds,
                reference_first=reference.first,
                reference_rounds=reference.rounds,
            )
        )
    return tuple(found)


def _unlike(samples: Iterable[DecodeSample], replays: Mapping[tuple[str, str], Replay]) -> int:
    """Timed prompts whose rounds were not as replayed.

    Args:
        samples: The timed prompts.
        replays: Replays by kind and document; those of all timed prompts, or none.
    """
    pairs = ((sample, replays[sample.kind, sample.document]) for sample in samples if replays)
    return sum(
        (sample.drafted_per_round, sample.accepted_per_round)
        != (replay.drafted_per_round, replay.accepted_per_round)
        for sample, replay in pairs
    )


def join(run: Run[EvaluateSpec | DecodeSpec]) -> None:
    """Write the record of an experiment, and its bulky rows beside it.

    Raises:
        UserError: an item is not measured, a block is damaged, or blocks do not go together.
    """
    paths = {name: run.job.path(name) for name in run.job.inputs}
    record: SdtpRecord | DecodeRecord
    if isinstance(run.spec, EvaluateSpec):
        record, rows = sdtp_record(run.spec, run.label, digests_of(run), paths)
    else:
        record, rows = decoding_record(run.spec, run.label, digests_of(run), paths)
    write_record(run.out, record, rows or None)


def _sdtp_sample(spec: EvaluateSpec, sample: TextSample, prefill: PrefillSample | None) -> SdtpSample:
    return SdtpSample(
        document=sample.document,
        prompt_tokens=spec.windows.prompt_tokens,
        nll=sample.nll,
        reference_nll=sample.reference_nll,
        agreement=sample.agreement,
        kl=sample.kl,
        living=sample.living,
        pairs=prefill.pairs if prefill else (),
        boundary_bytes=sample.boundary_bytes,
        reference_boundary_bytes=sample.reference_boundary_bytes,
        ranks=prefill.ranks if prefill else (),
    )


def _environment(environments: Sequence[Environment]) -> Environment:
    return environments[0].model_copy(
        update={
            "measured_at": max(one.measured_at for one in environments),
            "seconds": sum(one.seconds for one in environments),
        }
    )


def _peak_memory(series: Iterable[Joined]) -> int:
    return max(block.totals.peak_memory_bytes for one in series for block in one.blocks)


def _rows(series: Iterable[Joined]) -> list[dict]:
    return [row for one in series for row in one.rows]


if __name__ == "__main__":
    record_spec: Any = EvaluateSpec | DecodeSpec
    main("ablations.evidence.join", record_spec, join, "Join a record from its blocks.")
