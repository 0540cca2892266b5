"""Synthetic decoding rows and records."""

from collections.abc import Sequence
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
from ablations.specs.dynatree.counts import DecodingCounts
from ablations.specs.dynatree.decode import DecodePair, DecodeSample, DecodeSpec, DecodingTotals
from ablations.specs.dynatree.prompts import PromptSet
from ablations.specs.dynatree.replay import PricedReplay
from ablations.specs.lm import Compute
from tests.paper.synthetic_common import crash, record_of, rng

LINEAR = {"method": "linear", "branching": 1}
KINDS = ("code", "docs", "chat")
PROMPTS, TIMED, EXPLORATORY = 20, 5, 2
"""Prompts of each kind: those that are replayed, and those that are timed as `decoding` plans it."""
CONFIRMATORY = ("F2", "F3", "F4", "K3")
FIRST, REFERENCE_FIRST, REFERENCE_ROUNDS = 0.58, 0.55, 2.65
"""Prices in seconds, but for that of an arm's rounds."""
# id: title, section, step, change, hypothesis, expectation, versus, speed-up,
# acceptance, what the spec has instead of `DecodeSpec`'s defaults (None drafts nothing), budget of prompts


def _tree(tau: float | None = 0.05, **shape: int) -> dict[str, Any]:
    return {
        "drafter": NgramDraftSpec(context_weight=4.0),
        "shape": Shape(**shape),
        "pruning": TreePruning(tau=tau),
    }


def _linear(depth: int) -> dict[str, Any]:
    return {**_tree(None), "shape": Shape(method="linear", depth=depth, branching=1)}


def _reaching(accepted: Sequence[int], more: int) -> tuple[int, ...]:
    """Rounds that accepted at least `more` nodes, one more, and so on, of those that accepted the most."""
    return tuple(
        sum(count >= depth + more for count in accepted) for depth in range(max(accepted, default=0))
    )


DYNATREE: dict[str, tuple] = {
    "F1": ("AR", "forward", "AR", {"drafter": None}, None, {}, None, 1.0, 0.0, None, None),
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
        None,
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
        2,
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
        None,
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
        None,
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
        2,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
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
        None,
    ),
}

SHARED = {"K2": "F3", "K5": "F1"}
"""Rows that are another row under a second name, and share its record."""


def timed_prompts(name: str, replayed: bool = True) -> int:
    """Prompts of each kind on which a row is timed; without replays all, but for a row with a budget."""
    compared: set[str] = set()
    for row in CONFIRMATORY:
        expect, versus = DYNATREE[row][5], DYNATREE[row][6]
        compared |= {versus, *(other for key in ("above", "below", "about") for other in expect.get(key, ()))}
    planned = TIMED if name in {*CONFIRMATORY, *compared} else EXPLORATORY
    return min(planned if replayed else PROMPTS, DYNATREE[name][-1] or PROMPTS)


def decode_record(
    name: str,
    speedup: float,
    accepted: float,
    draft: dict[str, Any] | None,
    *,
    timed: int = TIMED,
    replayed: bool = True,
    crashed: bool = False,
    unmatched: int = 0,
) -> DecodeRecord:
    """The record of a row.

    Args:
        name: Id.
        speedup: Speed-up over autoregressive decoding, prefill included.
        accepted: Accepted tokens of a round.
        draft: What the spec has instead of `DecodeSpec`'s defaults; None drafts nothing.
        timed: Timed prompts of each kind.
        replayed: Whether `PROMPTS` of each kind are replayed; of F4 one timed prompt went otherwise.
        crashed: Whether the arm raised.
        unmatched: Prompts that depart from greedy at a tie.
    """
    spec = DecodeSpec(
        **{"drafter": None, "shape": None, "pruning": None, **(draft or {})},
        reference="autoregressive" if draft else "generate",
        prompts=_prompt_sets(timed),
        replayed=_prompt_sets(PROMPTS) if draft and replayed else (),
        new_tokens=64,
        repeats=2,
        compute=Compute(),
    )
    if crashed:
        return record_of(DecodeRecord, name, spec, crash(), (), None)
    samples, replays, unlike = [], [], 0
    for kind in KINDS:
        for number in range(PROMPTS):
            own = rng(f"{name} {kind} {number}")
            counts = _counts(own, kind, number, spec, accepted)
            ease = rng(f"{kind} {number}").normal(0, 0.12)
            ratio = speedup * float(np.exp(ease + own.normal(0, 0.04))) if draft else 1.25
            if spec.replayed:
                priced = ratio * float(np.exp(rng(name).normal(0, 0.03) + own.normal(0, 0.02)))
                replays.append(_replay(spec, counts, priced))
            if number < timed:
                if spec.replayed and name == "F4" and (kind, number) == ("code", 0):
                    replay = counts
                    counts = _counts(rng("a tie"), kind, number, spec, accepted)
                    unlike += counts.accepted_per_round != replay.accepted_per_round
                samples.append(_sample(own, counts, ratio, len(samples) < unmatched))
    totals = DecodingTotals(
        tie_margin=0.0,
        weight_layout="prepacked",
        peak_memory_bytes=1_200_000_000,
        replays=tuple(replays),
        unlike=unlike,
    )
    return record_of(DecodeRecord, name, spec, Outcome(status="ok"), tuple(samples), totals)


def _prompt_sets(count: int) -> tuple[PromptSet, ...]:
    return tuple(
        PromptSet(kind=kind, text=kind, split="heldout", count=count, tokens=None if kind == "code" else 256)
        for kind in KINDS
    )


def _counts(
    own: np.random.Generator, kind: str, number: int, spec: DecodeSpec, accepted: float
) -> DecodingCounts:
    """Rounds that come to 64 tokens, of which prefill gives the first."""
    per_round: list[int] = []
    left = 63 if spec.drafter else 0
    while left:
        per_round.append(min(int(own.binomial(spec.shape.depth, accepted / spec.shape.depth)), left - 1))
        left -= per_round[-1] + 1
    nodes = _nodes(spec)
    return DecodingCounts(
        document=f"prompt-{number:02d}",
        kind=kind,
        prompt_tokens=180,
        new_tokens=64,
        repeated_4grams=float(np.clip(own.normal(0.15, 0.05), 0, 1)),
        target_forwards=len(per_round) or 63,
        draft_forwards=len(per_round) * spec.shape.depth if spec.drafter else 0,
        drafted=len(per_round) * nodes,
        accepted=sum(per_round),
        accepted_per_round=tuple(per_round),
        drafted_per_round=(nodes,) * len(per_round),
        tested_per_depth=_reaching(per_round, 0),
        accepted_per_depth=_reaching(per_round, 1),
    )


def _nodes(spec: DecodeSpec) -> int:
    """Verified nodes of every round."""
    if not spec.drafter:
        return 0
    depth, branching = spec.shape.depth, spec.shape.branching
    full = sum(branching**level for level in range(1, depth + 1))
    return full if spec.pruning.tau is None else min(full, 2 * depth)


def _replay(spec: DecodeSpec, counts: DecodingCounts, ratio: float) -> PricedReplay:
    """A replay with prices whose ratio is given."""
    levels = tuple(min(spec.shape.branching**depth, 2) for depth in range(spec.shape.depth))
    return PricedReplay(
        **dict(counts),
        levels_per_round=(levels,) * counts.target_forwards,
        alone_per_round=(False,) * counts.target_forwards,
        first=FIRST,
        rounds=(REFERENCE_FIRST + REFERENCE_ROUNDS) / ratio - FIRST,
        reference_first=REFERENCE_FIRST,
        reference_rounds=REFERENCE_ROUNDS,
    )


def _sample(own: np.random.Generator, counts: DecodingCounts, ratio: float, tied: bool) -> DecodeSample:
    """A timed prompt with two rounds."""
    draft = counts.drafted > 0
    seconds = own.lognormal(np.log(3.3), 0.04, 2)
    return DecodeSample(
        **dict(counts),
        stopped=False,
        matched=not tied,
        ties=int(tied),
        draft_seconds=0.2 if draft else 0.0,
        verify_seconds=1.4,
        bookkeeping_seconds=0.05 if draft else 0.0,
        pairs=tuple(
            DecodePair(
                arm=float(s / ratio),
                arm_first=0.6,
                reference=float(s * own.lognormal(0, 0.02)),
                reference_first=float(own.lognormal(np.log(0.57), 0.02)) if draft else None,
                again=float(s * own.lognormal(0, 0.02)),
            )
            for s in seconds
        ),
    )
