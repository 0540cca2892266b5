"""Series in a folder: blocks that nobody measured, and the spec of the record that is joined from them."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ablations.core.artefact import new_artefact
from ablations.core.block import block_path, crash_path
from ablations.core.contract import Contract
from ablations.core.job import JobFile, Run
from ablations.core.record import Digests, Environment, Outcome, write_record
from ablations.evidence.join import DecodeBlock, PrefillBlock, ReplayBlock, RetrievalBlock, TextBlock
from ablations.specs.dynatree.arm import PromptLookup, Shape, TreePruning
from ablations.specs.dynatree.costs import COSTS_FILE, Costs
from ablations.specs.dynatree.decode import DecodePair, DecodeSample, DecodeSeries, DecodeSpec
from ablations.specs.dynatree.exactness import DecodeTotals
from ablations.specs.dynatree.prompts import PromptKind, PromptSet
from ablations.specs.dynatree.replay import COSTS, REPLAYED, Replay, ReplaySeries, ReplayTotals
from ablations.specs.lm import Compute
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import (
    PrefillSample,
    PrefillSeries,
    RetrievalSeries,
    SeriesTotals,
    TextSample,
    TextSeries,
)
from ablations.specs.sdtp.record import EvaluateSpec, Windows
from ablations.specs.sdtp.retrieval import Retrieval, RetrievalProbe, RetrievalPrompts
from ablations.specs.sdtp.timing import TimedPair, Timing

PRUNED = {
    "layers": (1,),
    "keep_ratios": (0.5,),
    "match": None,
    "preserve": Preserve(),
    "saliency": None,
    "importance": "recent",
    "seed": 0,
    "compute": Compute(),
}
SDTP = {
    "text": (TextBlock, TextSeries(**PRUNED, prompt_tokens=48, continuation_tokens=8)),
    "retrieval": (
        RetrievalBlock,
        RetrievalSeries(**PRUNED, prompt_tokens=48, prompts=RetrievalPrompts(tokens=64)),
    ),
    "prefill": (PrefillBlock, PrefillSeries(**PRUNED, prompt_tokens=48, continuation_tokens=8)),
}
ALONE = {"drafter": None, "shape": None, "pruning": None, "reference": "generate", "new_tokens": 8}
DRAFTS = {
    "drafter": PromptLookup(),
    "shape": Shape(),
    "pruning": TreePruning(),
    "reference": "autoregressive",
    "new_tokens": 8,
}
ROUNDS = {
    "target_forwards": 2,
    "draft_forwards": 4,
    "drafted": 9,
    "accepted": 5,
    "accepted_per_round": (2, 3),
    "drafted_per_round": (4, 5),
}
"""Rounds of a prompt of 8 new tokens: the first is that of the prompt, and each round adds one."""


def evaluate_spec(documents: int = 4, prompts: int = 4, timed: int = 3) -> EvaluateSpec:
    """A record of so many documents, retrieval prompts (0: none) and timed documents (0: no times)."""
    return EvaluateSpec(
        **PRUNED,
        windows=Windows(documents=documents, prompt_tokens=48, continuation_tokens=8),
        retrieval=Retrieval(tokens=64, count=prompts) if prompts else None,
        timing=Timing(documents=timed) if timed else None,
    )


def decode_spec(**counts: int) -> DecodeSpec:
    """A record of autoregressive decoding, of so many prompts of each kind."""
    return DecodeSpec(**ALONE, prompts=prompt_sets(counts))


def drafting_spec(timed: Mapping[str, int], replayed: Mapping[str, int], **changes: Any) -> DecodeSpec:
    """A record of decoding with drafts, of so many timed and so many replayed prompts of each kind."""
    sets = {"prompts": prompt_sets(timed), "replayed": prompt_sets(replayed)}
    return DecodeSpec(**DRAFTS | sets | changes)


def prompt_sets(counts: Mapping[str, int]) -> tuple[PromptSet, ...]:
    """So many prompts of each kind."""
    return tuple(PromptSet(kind=kind, text=kind, count=count) for kind, count in counts.items())


def environment(seconds: float = 10.0, hour: int = 1, device: str = "CPU") -> Environment:
    return Environment(
        measured_at=f"2025-01-01T{hour:02d}:00:00+00:00",
        seconds=seconds,
        host="00000000",
        device=device,
        device_type="cpu",
        threads=1,
        dtype="float32",
        platform="Linux x86_64",
        versions={},
        git_commit=None,
        git_dirty=None,
    )


def facts(layout: str = "stock", memory: int = 100) -> SeriesTotals:
    return SeriesTotals(
        keep_ratios=(0.5,),
        reference_prefill_flops=1000.0,
        reference_kv_bytes=500,
        weight_layout=layout,
        cores=2,
        peak_memory_bytes=memory,
    )


def text(number: int) -> TextSample:
    return TextSample(
        document=f"d{number}",
        nll=2.5 + number,
        reference_nll=2.0 + number,
        agreement=0.9,
        kl=0.1,
        living=(48, 24),
        flops=600 + 10 * number,
        kv_bytes=300 + number,
    )


def probe(number: int) -> RetrievalProbe:
    return RetrievalProbe(
        document=f"r{number}",
        kind="passkey",
        depth=0.1,
        hit=number > 1,
        nll=0.5 + number,
        reference_hit=True,
        reference_nll=0.1,
    )


def prefill(number: int) -> PrefillSample:
    pairs = (TimedPair(arm=1.0 + number, reference=2.0, again=2.1), TimedPair(arm=1.1, reference=2.0))
    return PrefillSample(document=f"d{number}", pairs=pairs)


def decoded(number: int, kind: str = "code") -> DecodeSample:
    return DecodeSample(
        document=f"p{number}",
        kind=kind,
        prompt_tokens=5,
        new_tokens=8,
        stopped=False,
        matched=True,
        ties=0,
        repeated_4grams=0.0,
        target_forwards=7,
        draft_forwards=0,
        drafted=0,
        accepted=0,
        accepted_per_round=(),
        draft_seconds=0.0,
        verify_seconds=1.0,
        pairs=(DecodePair(arm=1.0, arm_first=0.1, reference=1.2, reference_first=None, again=1.3),),
    )


def drafted(number: int, kind: str = "code", **changes: Any) -> DecodeSample:
    """A prompt that was decoded with drafts, as `replayed` says."""
    return decoded(number, kind).model_copy(update=ROUNDS | changes)


def replayed(number: int, kind: str = "code") -> Replay:
    return Replay(
        document=f"p{number}",
        kind=kind,
        prompt_tokens=5,
        new_tokens=8,
        repeated_4grams=0.0,
        **ROUNDS,
        levels_per_round=((1, 2), (1, 3)),
        alone_per_round=(False, False),
    )


MAKE = {"text": text, "retrieval": probe, "prefill": prefill}


class Study:
    """Series of one record in a folder laid out as `results`.

    Args:
        folder: The folder.
        spec: Spec of the record.
    """

    def __init__(self, folder: Path, spec: EvaluateSpec | DecodeSpec) -> None:
        self.folder = folder
        self.spec = spec
        if isinstance(spec, EvaluateSpec):
            parts = {"text": True, "retrieval": spec.retrieval, "prefill": spec.timing}
            self.names = tuple(name for name, wanted in parts.items() if wanted)
        else:
            kinds = [prompts.kind for prompts in spec.prompts]
            self.names = (*kinds, *(REPLAYED + prompts.kind for prompts in spec.replayed))

    def series(self, name: str) -> Path:
        """Folder of the blocks of a series."""
        return self.folder / "block" / f"digest-{name}"

    def digests(self) -> Digests:
        """Digests of the record."""
        inputs = {name: self.series(name).name for name in self.names}
        if COSTS in self.folders():
            inputs[COSTS] = "digest-costs"
        return Digests(job="record", spec="s", code="c", inputs=inputs, pins={})

    def folders(self) -> dict[str, Path]:
        """Folders of all series, by name; where prompts are replayed, also the manifest of their costs."""
        folders = {name: self.series(name) for name in self.names}
        if any(name.startswith(REPLAYED) for name in self.names):
            folders[COSTS] = self.folder / "costs" / "digest-costs" / "manifest.json"
        return folders

    def write_costs(self, costs: Costs) -> None:
        """Write the artefact of the drafter's costs."""
        job = JobFile[Contract](digest="d", module="m", spec=Contract(), spec_digest="s", code_digest="c")
        with new_artefact(Run(job, self.folders()[COSTS], None), {}) as folder:
            (folder / COSTS_FILE).write_text(costs.model_dump_json())

    def block(
        self,
        name: str,
        span: tuple[int, int],
        where: Environment | None = None,
        totals: Any = None,
        samples: Iterable | None = None,
        of: str | None = None,
    ) -> None:
        """Write a block; text and decoding have bulky rows.

        Args:
            name: Name of the series.
            span: Its items.
            where: Where it was measured.
            totals: Facts of the job.
            samples: Samples, where they are others than those of `MAKE`.
            of: Digest of the series, where it is another one.
        """
        if samples is None:
            samples = map(self._make(name), range(*span))
        rows = [{"item": number, "of": name} for number in range(*span)]
        content = self._content(name, where, of)
        content |= {"samples": tuple(samples), "totals": totals or self._totals(name)}
        with_rows = name not in ("retrieval", "prefill") and not name.startswith(REPLAYED)
        path = block_path(self.series(name), span)
        write_record(
            path, self._type(name)(**content, outcome=Outcome(status="ok")), rows if with_rows else None
        )

    def crash(self, name: str, number: int, message: str = "boom") -> None:
        """Write the block of a crash."""
        outcome = Outcome(status="crashed", exception="RuntimeError", message=message)
        content = self._content(name, None, None)
        write_record(crash_path(self.series(name), number), self._type(name)(**content, outcome=outcome))

    def write_spec(self) -> Path:
        """Write the spec file of the record and return its path."""
        digests = self.digests()
        job = {
            "digest": digests.job,
            "module": "ablations.evidence.join",
            "spec": self.spec.model_dump(mode="json"),
            "inputs": {name: str(path) for name, path in self.folders().items()},
            "input_digests": digests.inputs,
            "spec_digest": digests.spec,
            "code_digest": digests.code,
        }
        path = self.folder / "spec" / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(job))
        return path

    def _type(self, name: str) -> type:
        if name in SDTP:
            return SDTP[name][0]
        return ReplayBlock if name.startswith(REPLAYED) else DecodeBlock

    def _make(self, name: str) -> Callable[[int], Any]:
        if name in MAKE:
            return MAKE[name]
        if name.startswith(REPLAYED):
            return partial(replayed, kind=name.removeprefix(REPLAYED))
        return partial(drafted if self.spec.drafter else decoded, kind=name)

    def _totals(self, name: str) -> SeriesTotals | DecodeTotals | ReplayTotals:
        if name in SDTP:
            return facts()
        if name.startswith(REPLAYED):
            return ReplayTotals(weight_layout="stock", peak_memory_bytes=100)
        return DecodeTotals(tie_margin=0.0, weight_layout="stock", peak_memory_bytes=100)

    def _series_spec(self, name: str) -> Contract:
        if name in SDTP:
            return SDTP[name][1]
        contract = ReplaySeries if name.startswith(REPLAYED) else DecodeSeries
        kind = name.removeprefix(REPLAYED)
        shared = {key: getattr(self.spec, key) for key in contract.model_fields if key != "prompts"}
        return contract(**shared, prompts=PromptKind(kind=kind, text=kind))

    def _content(self, name: str, where: Environment | None, of: str | None) -> dict[str, Any]:
        module = "dynatree.replay_arms" if name.startswith(REPLAYED) else "dynatree.decode"
        return {
            "label": "A1",
            "module": f"ablations.{'sdtp.evaluate' if name in SDTP else module}",
            "spec": self._series_spec(name),
            "environment": where or environment(),
            "digests": Digests(job=of or self.series(name).name, spec="s", code="c", inputs={}, pins={}),
        }
