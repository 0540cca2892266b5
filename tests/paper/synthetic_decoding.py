"""Synthetic decoding rows and records."""

from typing import Any

import numpy as np

from ablations.core.record import Outcome
from ablations.evidence.join import DecodeRecord
from ablations.specs.dynatree.arm import (
    CostAwareTree,
    DistilledDraftSpec,
    DynamicTree,
    History,
    NgramDraftSpec,
    PromptLookup,
    Shape,
    TreePruning,
)
from ablations.specs.dynatree.decode import DecodePair, DecodeSample, DecodeSpec
from ablations.specs.dynatree.exactness import DecodeTotals
from ablations.specs.dynatree.prompts import PromptSet
from ablations.specs.lm import Compute
from tests.paper.synthetic_common import crash, record_of, rng

LINEAR = {"method": "linear", "branching": 1}
# id: title, section, step, change, hypothesis, expectation, versus, speed-up,
# acceptance, what the spec has instead of `DecodeSpec`'s defaults (None drafts nothing), prompts


def _tree(tau: float | None = 0.05, **shape: int) -> dict[str, Any]:
    return {
        "drafter": NgramDraftSpec(context_weight=4.0),
        "shape": Shape(**shape),
        "pruning": TreePruning(tau=tau),
    }


def _linear(depth: int) -> dict[str, Any]:
    return {**_tree(None), "shape": Shape(method="linear", depth=depth, branching=1)}


def _reaching(accepted: tuple[int, ...], more: int) -> tuple[int, ...]:
    """Rounds that accepted at least `more` nodes, one more, and so on, of those that accepted the most."""
    return tuple(
        sum(count >= depth + more for count in accepted) for depth in range(max(accepted, default=0))
    )


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
        _linear(6),
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
        _tree(None),
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
        _tree(),
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
        _linear(7),
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
        _tree(None),
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
        _tree(branching=1),
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
        _tree(depth=1),
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
    "E2": (
        "Dynamic breadth and depth",
        "adaptation",
        "+ dynamic breadth and depth",
        {"adaptation": {"kind": "dynamic"}},
        "Breadth and depth by confidence beat a fixed shape.",
        {"above": ("F4",)},
        "F4",
        1.95,
        2.2,
        {**_tree(), "adaptation": DynamicTree(kind="dynamic")},
        16,
    ),
    "E3": (
        "Dynamic, history",
        "adaptation",
        "+ history",
        {"adaptation": {"kind": "dynamic", "history": {}}},
        "Following past acceptance beats fixed thresholds.",
        {"above": ("E2",)},
        "E2",
        1.96,
        2.2,
        {**_tree(), "adaptation": DynamicTree(kind="dynamic", history=History())},
        16,
    ),
    "O1": (
        "Cost-aware tree",
        "adaptation",
        "+ nodes by measured cost",
        {"adaptation": {"kind": "cost_aware"}},
        "Spending nodes by cost is best.",
        {"above": ("F4", "E3")},
        "F4",
        2.2,
        2.4,
        {**_tree(), "adaptation": CostAwareTree(kind="cost_aware")},
        16,
    ),
    "PL": (
        "Prompt lookup",
        "drafter",
        "copying",
        {"drafter": "lookup"},
        "Copying alone does not suffice.",
        {"below": ("F4",)},
        "F4",
        1.5,
        1.4,
        {**_tree(), "drafter": PromptLookup()},
        16,
    ),
    "N1": (
        "Linear, distilled draft",
        "neural",
        "+ drafter (distilled)",
        {"drafter": "distilled", "shape": {**LINEAR, "depth": 6}, "pruning": {"tau": None}},
        "Drafting pays, whoever drafts.",
        {"above": ("F1",)},
        "F1",
        1.3,
        1.9,
        {**_linear(6), "drafter": DistilledDraftSpec()},
        16,
    ),
    "N3": (
        "Tree, distilled draft",
        "neural",
        "+ tree, + pruning",
        {"drafter": "distilled"},
        "Trees pay with a trained draft too.",
        {"above": ("N1",)},
        "N1",
        1.25,
        2.3,
        {**_tree(), "drafter": DistilledDraftSpec()},
        16,
    ),
    "X1": (
        "One level more",
        "my own",
        None,
        {"shape": {"depth": 8}},
        None,
        {},
        "F4",
        1.8,
        2.15,
        _tree(depth=8),
        16,
    ),
}

SHARED = {"K2": "F3", "K5": "F1"}
"""Rows that are another row under a second name, and share its record."""


def decode_record(
    name: str,
    prompts: int,
    speedup: float,
    accepted: float,
    draft: dict[str, Any] | None,
    crashed: bool,
    unmatched: int,
) -> DecodeRecord:
    kinds = ("code", "docs")
    spec = DecodeSpec(
        **{"drafter": None, "shape": None, "pruning": None, **(draft or {})},
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
        return record_of(DecodeRecord, name, spec, crash(), (), None)
    own, second = rng(name), rng(f"{name} again")
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
                draft_forwards=len(per_round) * spec.shape.depth if draft else 0,
                drafted=len(per_round) * 14 if draft else 0,
                accepted=sum(per_round),
                accepted_per_round=per_round,
                tested_per_depth=_reaching(per_round, 0),
                accepted_per_depth=_reaching(per_round, 1),
                draft_seconds=0.2 if draft else 0.0,
                verify_seconds=1.4,
                bookkeeping_seconds=0.05 if draft else 0.0,
                pairs=tuple(
                    DecodePair(
                        arm=float(s / ratio),
                        arm_first=0.6,
                        reference=float(s * own.lognormal(0, 0.02)),
                        reference_first=0.6,
                        again=float(s * second.lognormal(0, 0.02)),
                    )
                    for s in seconds
                ),
            )
        )
    totals = DecodeTotals(tie_margin=0.0, weight_layout="prepacked", peak_memory_bytes=1_200_000_000)
    return record_of(DecodeRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)
