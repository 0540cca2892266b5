"""A synthetic study through the real contracts: plausible random records, a plan, nothing measured.

Run as a script to look at what the renderers make of it:
``python tests/paper/synthetic.py FOLDER`` writes FOLDER/results/... for ``ablations.paper.collect``.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ablations.paper.collect import DecodeRecord, SdtpRecord
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
    EvaluateSpec,
    Preserve,
    SdtpSample,
    SdtpTotals,
    TimedPair,
    Timing,
    Windows,
)
from ablations.study.record_io import write_record

LAYERS = (4, 7, 9, 12, 15, 18, 21, 23, 26, 29)
PROMPT = 1024

# id: title, section, change, hypothesis, expectation, added NLL, speed-up, spec changes
SDTP = {
    "baseline": ("SDTP, full", "baseline", {}, None, {}, 0.37, 1.55, {}),
    "A2": (
        "Random importance",
        "pruner",
        {"importance": "random"},
        "Learned saliency, not sparsity alone, preserves quality.",
        {"quality": "down", "speed": "same"},
        0.49,
        1.57,
        {"importance": "random"},
    ),
    "A5": (
        "LM loss only",
        "losses",
        {"losses": {"mse": 0.0, "ranking": 0.0}},
        "The saliency losses carry the ranking signal; without them selection degrades.",
        {"quality": "down"},
        0.38,
        1.55,
        {},
    ),
    "A6": (
        "No protected head or tail",
        "preserve",
        {"preserve": {"head": 0, "tail": 0}},
        "Attention sinks and recency need explicit protection.",
        {"quality": "down_strong"},
        0.95,
        1.58,
        {"preserve": Preserve(head=0, tail=0)},
    ),
    "A7": (
        "Keep ratio 0.5",
        "ratio",
        {"schedule": {"keep_ratio": 0.5}},
        "Over-pruning costs quality & buys speed (50% of what lives).",
        {"quality": "down", "speed": "up"},
        0.46,
        1.85,
        {"keep_ratios": (0.5,) * 10},
    ),
    "A9": (
        "Keep ratio 0.8",
        "ratio",
        {"schedule": {"keep_ratio": 0.8}},
        "Gentler pruning costs less quality and gains less speed.",
        {"quality": "up", "speed": "down"},
        0.27,
        1.36,
        {"keep_ratios": (0.8,) * 10},
    ),
}

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
    "B1": (
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
    "B2": (
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
    "B3": (
        "Tree D=7 B=1 tau=0.05",
        "backward",
        "- branching",
        {"shape": {"branching": 1}},
        "One child per node is a linear draft that can stop early.",
        {"speed": "down", "about": ("B1",)},
        "F4",
        1.7,
        1.6,
        (Shape(branching=1), Pruning()),
        16,
    ),
    "B4": (
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
    "B5": (
        "AR",
        "backward",
        "- drafter",
        {"drafter": None},
        "Drafting is what pays.",
        {"below": ("F4", "B2")},
        "F4",
        1.0,
        0.0,
        None,
        16,
    ),
}

SHARED = {"B2": "F3", "B5": "F1"}
"""Rows that are another row under a second name, and share its record."""


def plan_of(
    folder: Path, settings: dict[str, Any] | None = None, extra: tuple[Experiment, ...] = ()
) -> PaperPlan:
    """The plan of the synthetic study, its records under `folder`."""
    experiments = [
        Experiment(
            id=name,
            method="sdtp",
            title=title,
            section=section,
            change=change,
            hypothesis=hypothesis,
            expect=Expectation(**expect),
            versus=None if name == "baseline" else "baseline",
            record=str(folder / "record" / f"{name}.json"),
        )
        for name, (title, section, change, hypothesis, expect, *_) in SDTP.items()
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
            record=str(folder / "record" / f"{SHARED.get(name, name)}.json"),
            budget={"prompts": prompts // 2} if prompts < 16 else {},
        )
        for name, (title, section, step, change, hypothesis, expect, versus, *_, prompts) in DYNATREE.items()
    ]
    options = {
        "forward": ("F1", "F2", "F3", "F4"),
        "backward": ("B1", "B2", "B3", "B4", "B5"),
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
    """
    plan = plan_of(folder, settings, extra)
    for name, (*_, added, speedup, changes) in SDTP.items():
        path = folder / "record" / f"{name}.json"
        if name in missing:
            continue
        added = (added_nll or {}).get(name, added)
        speedup = (speedups or {}).get(name, speedup)
        write_record(path, sdtp_record(name, documents, added, speedup, changes, name in crashed))
    for name, (*_, speedup, accepted, draft, prompts) in DYNATREE.items():
        path = folder / "record" / f"{name}.json"
        if name in missing or name in SHARED:
            continue
        speedup = (speedups or {}).get(name, speedup)
        write_record(path, decode_record(name, prompts, speedup, accepted, draft, name in crashed, unmatched))
    out = folder / "collect.json"
    out.write_text(plan.model_dump_json(indent=1))
    return out


def sdtp_record(
    name: str, documents: int, added: float, speedup: float, changes: dict[str, Any], crashed: bool
) -> SdtpRecord:
    base = {
        "importance": "learned",
        "layers": LAYERS,
        "keep_ratios": (0.7,) * 10,
        "preserve": Preserve(),
        "positions": "original",
        "mask": "hard",
        "propagation": "cascade",
        "selection": "top_k",
        "windows": Windows(documents=documents, prompt_tokens=PROMPT, continuation_tokens=64),
        "timing": Timing(documents=max(1, documents // 4 * 3), repeats=3),
        "seed": 0,
        "compute": Compute(),
    }
    spec = EvaluateSpec(**{**base, **changes})
    if crashed:
        return _record(SdtpRecord, name, spec, _crash(), (), None)
    shared = np.random.default_rng(0)
    levels = shared.normal(2.2, 0.5, documents).round(6)
    sensitivity = shared.normal(0.0, 0.12, documents)
    own = _rng(name)
    living = _living(spec)
    samples = []
    for index in range(documents):
        reference = float(levels[index])
        nll = round(reference + added + float(sensitivity[index]) + float(own.normal(0, 0.08)), 6)
        pairs = ()
        if index < spec.timing.documents:
            seconds = own.lognormal(np.log(3.1), 0.03, 3)
            pairs = tuple(
                TimedPair(arm=float(s / speedup * own.lognormal(0, 0.02)), reference=float(s))
                for s in seconds
            )
        samples.append(
            SdtpSample(
                document=f"module-{index:03d}",
                prompt_tokens=PROMPT,
                nll=nll,
                reference_nll=reference,
                living=living,
                pairs=pairs,
            )
        )
    share = sum(living) / (PROMPT * len(living))
    totals = SdtpTotals(
        prefill_flops=2.9e11 * share,
        reference_prefill_flops=2.9e11,
        kv_bytes=int(47_185_920 * share),
        reference_kv_bytes=47_185_920,
        peak_memory_bytes=1_500_000_000,
    )
    return _record(SdtpRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)


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
        environment=Environment(
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
        ),
        digests=Digests(
            job=hashlib.sha256(name.encode()).hexdigest()[:16],
            spec="0" * 16,
            code="0" * 16,
            inputs={
                "model": "m",
                **({"pruner": "lm-only" if name == "A5" else "full"} if name in SDTP else {}),
            },
            pins={},
        ),
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
    now, found = PROMPT, []
    ratios = dict(zip(spec.layers, spec.keep_ratios, strict=True))
    protected = spec.preserve.head + spec.preserve.tail
    for layer in range(30):
        if layer in ratios:
            now = max(min(protected, now), int(np.ceil(ratios[layer] * now)))
        found.append(now)
    return tuple(found)


if __name__ == "__main__":
    print(write_study(Path(sys.argv[1])))
