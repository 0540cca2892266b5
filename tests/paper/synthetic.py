"""A synthetic study through the real contracts: plausible random records, a plan, nothing measured.

Run as a script to look at what the renderers make of it:
``python tests/paper/synthetic.py FOLDER`` writes FOLDER/results/... for ``ablations.paper.collect``.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.paper.collecting.arms import DecodeRecord, SdtpRecord
from ablations.study.contracts.dynatree import (
    DecodePair,
    DecodeSample,
    DecodeSpec,
    DecodeTotals,
    NgramDraftSpec,
    PromptSet,
    Pruning,
    Shape,
)
from ablations.study.contracts.lm import Compute
from ablations.study.contracts.paper import Expectation, Experiment, PaperPlan, PaperSettings
from ablations.study.contracts.record import Digests, Environment, Outcome
from ablations.study.contracts.sdtp import (
    Calibration,
    EvaluateSpec,
    Preserve,
    PrunerSpec,
    Ranking,
    RankTime,
    Retrieval,
    RetrievalProbe,
    SaliencySpec,
    SdtpSample,
    SdtpTotals,
    Sweep,
    SweepPoint,
    SweepSpec,
    TimedPair,
    Timing,
    Training,
    Windows,
)
from ablations.study.files import write_text
from ablations.study.record_io import write_record
from tests.paper.design import LAYERS, SMALL, WHOLE, Row

PROMPT = 1024
HIDDEN_BYTES = 576 * 2
HELDOUT = 12

LINEAR = {"method": "linear", "branching": 1}
# id: title, section, step, change, hypothesis, expectation, versus, speed-up,
# acceptance, (shape, pruning), prompts
DYNATREE: dict[str, tuple] = {
    "F1": ("AR", "forward", "AR", {"drafter": None}, None, {}, None, 1.0, 0.0, None, 16),
    "F2": (
        "Linear K=6",
        "forward",
        "+ drafter (n-gram)",
        {"shape": {**LINEAR, "depth": 6}, "pruning": {"tau": None}},
        "A cheap drafter already pays.",
        {"speed": "up", "quality": "same"},
        "F1",
        1.62,
        1.5,
        (Shape(method="linear", depth=6, branching=1), Pruning(tau=None)),
        16,
    ),
    "F3": (
        "Tree D=7 B=2",
        "forward",
        "+ tree",
        {"pruning": {"tau": None}},
        "A wider draft alone costs more than it accepts.",
        {"speed": "down", "quality": "same"},
        "F2",
        0.21,
        2.3,
        (Shape(), Pruning(tau=None)),
        6,
    ),
    "F4": (
        "Tree D=7 B=2 tau=0.05",
        "forward",
        "+ pruning",
        {},
        "Pruning makes the tree affordable.",
        {"speed": "up_strong", "quality": "same", "above": ("F2",)},
        "F3",
        1.83,
        2.1,
        (Shape(), Pruning()),
        16,
    ),
    "K1": (
        "Linear K=7",
        "backward",
        "- tree",
        {"shape": {**LINEAR, "depth": 7}, "pruning": {"tau": None}},
        "Without the tree, alternatives at uncertain tokens are lost.",
        {"speed": "down", "about": ("F2",)},
        "F4",
        1.6,
        1.55,
        (Shape(method="linear", depth=7, branching=1), Pruning(tau=None)),
        16,
    ),
    "K2": (
        "Tree D=7 B=2 without pruning",
        "backward",
        "- pruning",
        {"pruning": {"tau": None}},
        "Without pruning, drafting and verification outgrow their gain.",
        {"speed": "down_strong"},
        "F4",
        0.21,
        2.3,
        (Shape(), Pruning(tau=None)),
        6,
    ),
    "K3": (
        "Tree D=7 B=1 tau=0.05",
        "backward",
        "- branching",
        {"shape": {"branching": 1}},
        "One child per node is a linear draft that can stop early.",
        {"speed": "down", "about": ("K1",)},
        "F4",
        1.7,
        1.6,
        (Shape(branching=1), Pruning()),
        16,
    ),
    "K4": (
        "Tree D=1 B=2 tau=0.05",
        "backward",
        "- depth",
        {"shape": {"depth": 1}},
        "A shallow tree cannot amortise a target forward.",
        {"speed": "down"},
        "F4",
        1.25,
        0.6,
        (Shape(depth=1), Pruning()),
        16,
    ),
    "K5": (
        "AR",
        "backward",
        "- drafter",
        {"drafter": None},
        "Drafting is what pays.",
        {"below": ("F4", "K2")},
        "F4",
        1.0,
        0.0,
        None,
        16,
    ),
}

SHARED = {"K2": "F3", "K5": "F1"}
"""Rows that are another row under a second name, and share its record."""


def plan_of(
    folder: Path,
    settings: dict[str, Any] | None = None,
    extra: tuple[Experiment, ...] = (),
    design: dict[str, Row] = SMALL,
    lengths: tuple[int, ...] = (),
) -> PaperPlan:
    """The plan of the synthetic study, its records under `folder`."""
    experiments = [
        Experiment(
            id=name,
            method="sdtp",
            title=row.title,
            section=row.section,
            change=row.change,
            hypothesis=row.hypothesis,
            expect=Expectation(**row.expect),
            versus=None if name == "baseline" else row.versus,
            records=tuple(str(path) for path in _paths(folder, name, row)),
        )
        for name, row in design.items()
    ]
    experiments += [
        Experiment(
            id=name,
            method="dynatree",
            title=title,
            section=section,
            step=step,
            change=change,
            hypothesis=hypothesis,
            expect=Expectation(**expect),
            versus=versus,
            records=(str(folder / "record" / f"{SHARED.get(name, name)}.json"),),
            budget={"prompts": prompts // 2} if prompts < 16 else {},
        )
        for name, (title, section, step, change, hypothesis, expect, versus, *_, prompts) in DYNATREE.items()
    ]
    options = {
        "forward": ("F1", "F2", "F3", "F4"),
        "backward": ("K1", "K2", "K3", "K4", "K5"),
        "resamples": 1999,
    }
    return PaperPlan(
        study="synthetic",
        settings=PaperSettings(**{**options, **(settings or {})}),
        experiments=(*experiments, *extra),
        models={"sdtp": "Tiny-LM (random weights)", "dynatree": "Tiny-LM (random weights)"},
        texts={
            "sdtp": "the CPython documentation and library",
            "code": "HumanEval",
            "docs": "the CPython documentation and library",
        },
        sweeps=tuple(str(folder / "sweep" / f"{length}.json") for length in lengths),
        code="0" * 64,
    )


def write_study(
    folder: Path,
    *,
    documents: int = 32,
    settings: dict[str, Any] | None = None,
    missing: tuple[str, ...] = (),
    crashed: tuple[str, ...] = (),
    added_nll: dict[str, float] | None = None,
    speedups: dict[str, float] | None = None,
    extra: tuple[Experiment, ...] = (),
    unmatched: int = 0,
    design: dict[str, Row] = SMALL,
    lengths: tuple[int, ...] = (),
) -> Path:
    """Write records and plan; return the plan's path.

    Args:
        folder: Where `record/` and `collect.json` go.
        documents: Held-out documents of an SDTP arm.
        settings: Overrides of the paper settings.
        missing: Experiments without a record.
        crashed: Experiments whose arm raised.
        added_nll: NLL over the unpruned model, by id.
        speedups: Speed-ups, by id.
        extra: Further experiments (records are the caller's).
        unmatched: Prompts of each decoding arm that depart from greedy at a tie.
        design: SDTP rows.
        lengths: Prompt lengths of the sweep.
    """
    plan = plan_of(folder, settings, extra, design, lengths)
    for name, row in design.items():
        if name in missing:
            continue
        row = replace(
            row,
            added=(added_nll or {}).get(name, row.added),
            speedup=(speedups or {}).get(name, row.speedup),
            crashed=row.crashed or name in crashed,
        )
        for seed, path in enumerate(_paths(folder, name, row)):
            write_record(path, sdtp_record(name, documents, row, seed))
    for length in lengths:
        write_text(folder / "sweep" / f"{length}.json", sweep(length).model_dump_json(indent=1))
    for name, (*_, speedup, accepted, draft, prompts) in DYNATREE.items():
        path = folder / "record" / f"{name}.json"
        if name in missing or name in SHARED:
            continue
        speedup = (speedups or {}).get(name, speedup)
        write_record(path, decode_record(name, prompts, speedup, accepted, draft, name in crashed, unmatched))
    out = folder / "collect.json"
    out.write_text(plan.model_dump_json(indent=1))
    return out


def sdtp_record(name: str, documents: int, row: Row, seed: int = 0) -> SdtpRecord:
    base = {
        "importance": "learned",
        "layers": LAYERS,
        "keep_ratios": (0.7,) * 10,
        "match": None,
        "preserve": Preserve(),
        "positions": "original",
        "mask": "hard",
        "propagation": "cascade",
        "selection": "top_k",
        "saliency": None,
        "pipeline": None,
        "windows": Windows(documents=documents, prompt_tokens=PROMPT, continuation_tokens=64),
        "retrieval": Retrieval(tokens=256, depths=(0.1, 0.5, 0.9), keys=4),
        "timing": Timing(documents=max(1, documents // 4 * 3), repeats=3) if seed == 0 else None,
        "seed": seed,
        "compute": Compute(),
    }
    spec = EvaluateSpec(**{**base, **row.spec})
    if spec.pipeline:
        spec = spec.model_copy(update={"retrieval": None})
    if row.crashed:
        return _record(SdtpRecord, name, spec, _crash(), (), None)
    shared = np.random.default_rng(0)
    levels = shared.normal(2.2, 0.5, documents).round(6)
    sensitivity = shared.normal(0.0, 0.12, documents)
    own, other = _rng(name + "+" * seed), _rng(f"{name} {seed}")
    living = _living(spec)
    drift = 0.0 if seed == 0 else float(own.normal(0, 0.02))
    samples = []
    for index in range(documents):
        reference = float(levels[index])
        nll = round(reference + row.added + drift + float(sensitivity[index]) + float(own.normal(0, 0.08)), 6)
        pairs, ranks = (), ()
        if spec.timing and index < spec.timing.documents:
            seconds = own.lognormal(np.log(3.1), 0.03, 3)
            pairs = tuple(
                TimedPair(arm=float(s / row.speedup * own.lognormal(0, 0.02)), reference=float(s))
                for s in seconds
            )
            ranks = (RankTime(busy=1.2, idle=0.8), RankTime(busy=0.7, idle=1.3)) if spec.pipeline else ()
        samples.append(
            SdtpSample(
                document=f"module-{index:03d}",
                prompt_tokens=PROMPT,
                nll=nll,
                reference_nll=reference,
                agreement=float(np.clip(0.93 - row.added / 2 + other.normal(0, 0.03), 0, 1)),
                kl=abs(row.added * 0.6 + float(other.normal(0, 0.02))),
                living=living,
                pairs=pairs,
                boundary_bytes=(_sent(spec, living),) if spec.pipeline else (),
                reference_boundary_bytes=(PROMPT * HIDDEN_BYTES,) if spec.pipeline else (),
                ranks=ranks,
            )
        )
    share = sum(living) / (PROMPT * len(living))
    totals = SdtpTotals(
        keep_ratios=spec.keep_ratios,
        prefill_flops=2.9e11 * share,
        reference_prefill_flops=2.9e11,
        kv_bytes=int(47_185_920 * share),
        reference_kv_bytes=47_185_920,
        training=_training(row, own, seed) if spec.importance == "learned" else None,
        calibration=None
        if spec.selection == "top_k"
        else Calibration(values=(0.8,) * 10, counts=(700,) * 10, mean_kept=(703.5,) * 10),
        retrieval=_probes(own, row.added) if spec.retrieval else (),
        weight_layout="stock",
        cores=2,
        peak_memory_bytes=1_500_000_000,
    )
    return _record(SdtpRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)


def sweep(tokens: int) -> Sweep:
    """A sweep at one prompt length."""
    own = _rng(f"sweep {tokens}")

    def pairs(speedup: float) -> tuple[TimedPair, ...]:
        seconds = tokens / 300 * own.lognormal(0, 0.03, 3)
        return tuple(
            TimedPair(arm=float(s / speedup * own.lognormal(0, 0.02)), reference=float(s)) for s in seconds
        )

    ratios = (0.9, 0.7, 0.5)
    shares = {
        ratio: float(np.mean([ratio ** sum(at <= layer for at in LAYERS) for layer in range(30)]))
        for ratio in ratios
    }
    return Sweep(
        spec=SweepSpec(
            layers=LAYERS,
            keep_ratios=ratios,
            preserve=Preserve(),
            tokens=tokens,
            new_tokens=128,
            repeats=3,
            compute=Compute(),
        ),
        points=tuple(
            SweepPoint(
                keep_ratio=ratio,
                flops=2.8e8 * tokens * shares[ratio],
                reference_flops=2.8e8 * tokens,
                kv_bytes=int(46_080 * tokens * shares[ratio]),
                reference_kv_bytes=46_080 * tokens,
                prefill=pairs(0.95 / shares[ratio]),
                end_to_end=pairs(0.6 / shares[ratio] + 0.4),
                overhead=0.015,
            )
            for ratio in ratios
        ),
        library=pairs(1.1),
        weight_layout="stock",
        environment=_environment(),
        digests=_digests(f"sweep {tokens}", {}),
    )


def _paths(folder: Path, name: str, row: Row) -> list[Path]:
    return [
        folder / "record" / (f"{name}-{seed}.json" if seed else f"{name}.json") for seed in range(row.seeds)
    ]


def _training(row: Row, own: np.random.Generator, seed: int) -> Training:
    def ranking(level: float) -> tuple[Ranking, ...]:
        return tuple(
            Ranking(
                document=f"window-{index:02d}",
                spearman=tuple(np.clip(own.normal(level, 0.06, 10), -1, 1)),
                ndcg=tuple(np.clip(own.normal(0.8 + level / 6, 0.02, 10), 0, 1)),
                overlap=tuple(np.clip(own.normal(0.7 + level / 4, 0.02, 10), 0, 1)),
            )
            for index in range(HELDOUT)
        )

    return Training(
        pruner=PrunerSpec(
            layers=LAYERS,
            losses=row.losses,
            keep_ratios=(row.trained_at,) * 10,
            preserve=Preserve(),
            width=128,
            epochs=1,
            batch=1,
            learning_rate=1e-3,
            temperature=1.0,
            seed=seed,
            compute=Compute(),
        ),
        saliency=SaliencySpec(
            layers=LAYERS,
            target=row.target,
            documents=40,
            heldout_documents=HELDOUT,
            tokens=384,
            continuation_tokens=64,
            compute=Compute(),
        ),
        ranking=ranking(row.spearman),
        ranking_untrained=ranking(0.02),
        seconds=120.0,
    )


def _probes(own: np.random.Generator, added: float) -> tuple[RetrievalProbe, ...]:
    return tuple(
        RetrievalProbe(
            depth=depth,
            hit=bool(own.random() > added + 0.2),
            nll=0.4,
            reference_hit=key > 0,
            reference_nll=0.2,
        )
        for depth in (0.1, 0.5, 0.9)
        for key in range(4)
    )


def _sent(spec: EvaluateSpec, living: tuple[int, ...]) -> int:
    """Bytes over the boundary before layer 15; the stage there runs on either side of it."""
    return living[15 if spec.pipeline.prune == "before" else 14] * HIDDEN_BYTES


def decode_record(
    name: str,
    prompts: int,
    speedup: float,
    accepted: float,
    draft: tuple | None,
    crashed: bool,
    unmatched: int,
) -> DecodeRecord:
    shape, pruning = draft or (None, None)
    kinds = ("code", "docs")
    spec = DecodeSpec(
        drafter=NgramDraftSpec(context_weight=4.0) if draft else None,
        shape=shape,
        pruning=pruning,
        reference="autoregressive" if draft else "generate",
        prompts=tuple(
            PromptSet(
                kind=kind,
                text=kind,
                split="heldout",
                count=prompts // 2,
                tokens=None if kind == "code" else 256,
            )
            for kind in kinds
        ),
        new_tokens=64,
        repeats=2,
        compute=Compute(),
    )
    if crashed:
        return _record(DecodeRecord, name, spec, _crash(), (), None)
    own = _rng(name)
    samples = []
    for index in range(prompts):
        ease = np.random.default_rng(index).normal(0, 0.12)
        rounds = max(1, round(63 / (1 + accepted)))
        per_round = tuple(int(own.binomial(7, min(1, accepted / 7))) for _ in range(rounds)) if draft else ()
        ratio = speedup * float(np.exp(ease + own.normal(0, 0.04))) if draft else 1.25
        seconds = own.lognormal(np.log(3.3), 0.04, 2)
        samples.append(
            DecodeSample(
                document=f"prompt-{index // 2:02d}",
                kind=kinds[index % 2],
                prompt_tokens=180,
                new_tokens=64,
                stopped=False,
                matched=index >= unmatched,
                ties=int(index < unmatched),
                repeated_4grams=float(np.clip(own.normal(0.15, 0.05), 0, 1)),
                target_forwards=len(per_round) if draft else 63,
                draft_forwards=len(per_round) * shape.depth if draft else 0,
                drafted=len(per_round) * 14 if draft else 0,
                accepted=sum(per_round),
                accepted_per_round=per_round,
                draft_seconds=0.2 if draft else 0.0,
                verify_seconds=1.4,
                pairs=tuple(
                    DecodePair(
                        arm=float(s / ratio),
                        arm_first=0.6,
                        reference=float(s * own.lognormal(0, 0.02)),
                        reference_first=0.6,
                    )
                    for s in seconds
                ),
            )
        )
    totals = DecodeTotals(tie_margin=0.0, weight_layout="prepacked", peak_memory_bytes=1_200_000_000)
    return _record(DecodeRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)


def _record(kind: type, name: str, spec: Any, outcome: Outcome, samples: tuple, totals: Any) -> Any:
    return kind(
        label=name,
        module="synthetic",
        spec=spec,
        outcome=outcome,
        samples=samples,
        totals=totals,
        environment=_environment(),
        digests=_digests(name, {"pruner": _scorer(name)} if name in WHOLE else {}),
    )


def _scorer(name: str) -> str:
    """Arms that change neither losses nor target nor the ratio of training share a scorer."""
    row = WHOLE[name]
    return f"{row.losses} {row.target} {row.trained_at}"


def _environment() -> Environment:
    return Environment(
        measured_at="2025-01-01T00:00:00+00:00",
        seconds=100.0,
        host="00000000",
        device="Synthetic CPU @ 2.00GHz",
        device_type="cpu",
        threads=1,
        dtype="float32",
        platform="Linux x86_64",
        versions={"python": "3.11.0", "torch": "2.13.0", "transformers": "5.23.0"},
        git_commit="0123456789abcdef0123456789abcdef01234567",
        git_dirty=False,
    )


def _digests(name: str, inputs: dict[str, str]) -> Digests:
    return Digests(
        job=hashlib.sha256(name.encode()).hexdigest()[:16],
        spec="0" * 16,
        code="0" * 16,
        inputs={"model": "m", **inputs},
        pins={},
    )


def _crash() -> Outcome:
    return Outcome(
        status="crashed",
        exception="RuntimeError",
        message="The size of tensor a (716) must match the size of tensor b (1024) at dimension 2",
        place="apply_rotary_pos_emb in transformers.models.llama.modeling_llama",
    )


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))


def _living(spec: EvaluateSpec) -> tuple[int, ...]:
    if spec.mask == "soft":
        return (PROMPT,) * 30
    now, found = PROMPT, []
    ratios = dict(zip(spec.layers, spec.keep_ratios, strict=True))
    protected = spec.preserve.head + spec.preserve.tail
    for layer in range(30):
        if layer in ratios:
            now = max(min(protected, now), int(np.ceil(ratios[layer] * now)))
        found.append(now)
    return tuple(found)


if __name__ == "__main__":
    print(write_study(Path(sys.argv[1]), design=WHOLE, lengths=(512, 1024, 2048, 4096)))
