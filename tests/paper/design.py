"""The rows of a whole SDTP design, with numbers that nobody measured."""

from dataclasses import dataclass, field
from typing import Any

from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import Match, Pipeline, PromptSaliency
from ablations.specs.sdtp.saliency import SaliencyTarget
from ablations.specs.sdtp.train import Losses

LAYERS = (4, 7, 9, 12, 15, 18, 21, 23, 26, 29)


@dataclass(frozen=True)
class Row:
    """One SDTP experiment of the synthetic study."""

    title: str
    section: str
    change: dict[str, Any]
    hypothesis: str | None
    expect: dict[str, Any]
    added: float
    """NLL over the unpruned model; KL divergence and NLL of answers follow it."""
    speedup: float
    spec: dict[str, Any] = field(default_factory=dict)
    """What differs from the baseline's spec."""
    versus: str = "baseline"
    seeds: int = 1
    losses: Losses = field(default_factory=Losses)
    target: SaliencyTarget = field(default_factory=SaliencyTarget)
    trained_at: float = 0.7
    spearman: float = 0.72
    crashed: bool = False

    @property
    def importance(self) -> str:
        return self.spec.get("importance", "learned")

    @property
    def timed(self) -> bool:
        """Whether its kernels are not those of the baseline."""
        return (
            not self.change
            or self.importance == "saliency"
            or not set(self.change) <= {*("importance", "losses", "saliency")}
        )


def _losses(name: str, **weights: float) -> dict[str, Any]:
    return {"change": {"losses": weights}, "losses": Losses(**weights), "section": "losses", "title": name}


def _ratio(ratio: float, stages: int = 10, **change: Any) -> dict[str, Any]:
    layers = LAYERS if stages == 10 else LAYERS[::2]
    return {
        "title": f"Keep ratio {ratio:g}" + (", 5 stages" if stages == 5 else ""),
        "section": "ratio",
        "change": {"schedule": {"keep_ratio": ratio, **({"stages": 5} if stages == 5 else {}), **change}},
        "spec": {"layers": layers, "keep_ratios": (ratio,) * stages},
    }


def _layers(layers: tuple[int, ...], name: str, ratio: float = 0.7, matched: bool = False) -> dict[str, Any]:
    match = Match(quantity="flops", layers=LAYERS, keep_ratios=(0.7,) * 10, preserve=Preserve())
    return {
        "title": name,
        "section": "layers",
        "change": {"schedule": {"layers": list(layers), **({"match": "flops"} if matched else {})}},
        "spec": {
            "layers": layers,
            "keep_ratios": (ratio,) * len(layers),
            "match": match if matched else None,
        },
    }


def _total(ratio: float) -> dict[str, Any]:
    row = _ratio(ratio ** (1 / 10), scope="total")
    return {
        **row,
        "title": f"Total keep ratio {ratio:g}",
        "change": {"schedule": {"keep_ratio": ratio, "scope": "total"}},
    }


def _parallel(name: str, layers: tuple[int, ...] = LAYERS, **pipeline: Any) -> dict[str, Any]:
    schedule = {} if layers == LAYERS else {"schedule": {"layers": list(layers)}}
    return {
        "title": name,
        "section": "parallel",
        "change": {"pipeline": {"ranks": 2, **pipeline}, **schedule},
        "spec": {
            "pipeline": Pipeline(ranks=2, **pipeline),
            "layers": layers,
            "keep_ratios": (0.7,) * len(layers),
        },
    }


_PRESERVE = {"preserve": Preserve(head=0, tail=0)}

SMALL = {
    "baseline": Row("SDTP, full", "baseline", {}, None, {}, 0.37, 1.55, seeds=3),
    "A2": Row(
        "Random importance",
        "pruner",
        {"importance": "random"},
        "Learned saliency, not sparsity alone, preserves quality.",
        {"quality": "down", "speed": "same"},
        0.49,
        1.57,
        {"importance": "random"},
        seeds=3,
    ),
    "A5": Row(
        **_losses("LM loss only", mse=0.0, ranking=0.0),
        hypothesis="The saliency losses carry the ranking signal; without them selection degrades.",
        expect={"quality": "down", "speed": "same"},
        added=0.38,
        speedup=1.55,
        spearman=0.15,
        seeds=3,
    ),
    "A6": Row(
        "No protected head or tail",
        "preserve",
        {"preserve": {"head": 0, "tail": 0}},
        "Attention sinks and recency need explicit protection.",
        {"quality": "down_strong"},
        0.95,
        1.58,
        _PRESERVE,
    ),
    "A7": Row(
        **_ratio(0.5),
        hypothesis="Over-pruning costs quality & buys speed (50% of what lives).",
        expect={"quality": "down", "speed": "up"},
        added=0.46,
        speedup=1.85,
    ),
    "A9": Row(
        **_ratio(0.8),
        hypothesis="Gentler pruning costs less quality and gains less speed.",
        expect={"text": "up", "retrieval": "same", "speed": "down"},
        added=0.27,
        speedup=1.36,
    ),
}
"""A few rows, of as many kinds."""

_LESS = "Many layers beat one, because what is unimportant differs from layer to layer."
_CHEAP = "A scorer that costs nothing is as good as a trained one, as a reviewer would ask."
_TARGET = "The definition of saliency matters little."

WHOLE = {
    **SMALL,
    "A1": Row(
        "Gradient saliency of the prompt",
        "pruner",
        {"importance": "saliency"},
        "The learned pruner beats raw saliency.",
        {"quality": "down", "speed": "same"},
        0.41,
        0.43,
        {"importance": "saliency", "saliency": PromptSaliency(measure="norm", loss_tokens=64)},
    ),
    "A1s": Row(
        "Mean calibration saliency by relative position",
        "pruner",
        {"importance": "prior"},
        "As A1, at no cost per prompt.",
        {"quality": "down", "speed": "same"},
        0.43,
        1.59,
        {"importance": "prior"},
    ),
    "M1": Row(
        "Most recent tokens",
        "pruner",
        {"importance": "recent"},
        _CHEAP,
        {"quality": "down"},
        0.40,
        1.6,
        {"importance": "recent"},
    ),
    "M2": Row(
        "Norm of the hidden state",
        "pruner",
        {"importance": "hidden_norm"},
        _CHEAP,
        {"quality": "down"},
        0.6,
        1.58,
        {"importance": "hidden_norm"},
    ),
    "A3": Row(
        **_losses("No ranking loss", ranking=0.0),
        hypothesis="The ranking loss matters.",
        expect={"quality": "down", "speed": "same"},
        added=0.40,
        speedup=1.55,
        spearman=0.64,
        seeds=3,
    ),
    "A3b": Row(
        **_losses("No LM loss", lm=0.0),
        hypothesis="Supervising importance alone suffices.",
        expect={"quality": "down", "speed": "same"},
        added=0.36,
        speedup=1.55,
        spearman=0.73,
    ),
    "A4": Row(
        **_losses("No MSE loss", mse=0.0),
        hypothesis="Regression alignment matters.",
        expect={"quality": "down", "speed": "same"},
        added=0.375,
        speedup=1.55,
        spearman=0.715,
    ),
    "A4b": Row(
        **_losses("Ranking loss only", lm=0.0, mse=0.0),
        hypothesis="As A3b and A4 together.",
        expect={"quality": "down"},
        added=0.39,
        speedup=1.55,
        spearman=0.7,
    ),
    "A6m": Row(
        "No protected head or tail, the baseline's count",
        "preserve",
        {"preserve": {"head": 0, "tail": 0}, "schedule": {"match": "count"}},
        "The effect of A6 is not that of the count.",
        {"quality": "down"},
        0.9,
        1.56,
        _PRESERVE,
    ),
    "A8": Row(
        **_ratio(0.3),
        hypothesis="Extreme pruning costs much quality and buys much speed.",
        expect={"quality": "down_strong", "speed": "up_strong"},
        added=0.9,
        speedup=2.6,
    ),
    "B1": Row(
        **_layers((4,), "Prune at layer 4 only"),
        hypothesis=_LESS,
        expect={"quality": "down", "speed": "down"},
        added=0.1,
        speedup=1.2,
    ),
    "B1f": Row(
        **_layers((4, 12, 21), "Three fixed layers"),
        hypothesis=_LESS,
        expect={"quality": "down", "speed": "down"},
        added=0.2,
        speedup=1.35,
    ),
    "B1m": Row(
        **_layers((4,), "Prune at layer 4 only, at the baseline's FLOPs", 0.31, matched=True),
        hypothesis="At equal cost, many layers beat one.",
        expect={"quality": "down", "speed": "same"},
        added=0.55,
        speedup=1.6,
    ),
    "B1fm": Row(
        **_layers((4, 12, 21), "Three fixed layers, at the baseline's FLOPs", 0.5, matched=True),
        hypothesis="At equal cost, many layers beat three.",
        expect={"quality": "down", "speed": "same"},
        added=0.45,
        speedup=1.57,
    ),
    "B2": Row(
        "No RoPE index fix",
        "positions",
        {"positions": "stale"},
        "The RoPE index must be corrected.",
        {"quality": "crash"},
        0,
        1,
        {"positions": "stale"},
        crashed=True,
    ),
    "B2p": Row(
        "Positions renumbered",
        "positions",
        {"positions": "packed"},
        "As B2 without the crash.",
        {"quality": "down"},
        0.45,
        1.55,
        {"positions": "packed"},
    ),
    "C1": Row(
        "Soft mask only",
        "parallel",
        {"mask": "soft"},
        "A mask alone keeps the accuracy and saves nothing.",
        {"quality": "same", "speed": "down_strong"},
        0.36,
        0.86,
        {"mask": "soft"},
    ),
    "C2": Row(
        "Local propagation",
        "parallel",
        {"propagation": "local"},
        "Upper layers fail on tokens that missed some layers.",
        {"quality": "down"},
        0.8,
        1.5,
        {"propagation": "local"},
    ),
    "C3": Row(
        "Stale keys",
        "parallel",
        {"propagation": "stale_keys"},
        "Errors accumulate where masks are not updated.",
        {"quality": "down"},
        0.5,
        1.3,
        {"propagation": "stale_keys"},
    ),
    "P1": Row(
        "Top-p mass",
        "selection",
        {"selection": "top_p"},
        "The rule matters less than the scores.",
        {"quality": "same", "speed": "same"},
        0.38,
        1.5,
        {"selection": "top_p"},
    ),
    "P2": Row(
        "Threshold",
        "selection",
        {"selection": "threshold"},
        "The rule matters less than the scores.",
        {"quality": "same", "speed": "same"},
        0.39,
        1.52,
        {"selection": "threshold"},
    ),
    "GB": Row(**_parallel("Baseline over two ranks"), hypothesis=None, expect={}, added=0.37, speedup=1.5),
    "G0": Row(
        **_parallel("No pruning before the boundary", prune="after"),
        hypothesis="Pruning before the boundary cuts traffic and time.",
        expect={"speed": "down"},
        added=0.37,
        speedup=1.45,
        versus="GB",
    ),
    "G1": Row(
        **_parallel("Only the first two of ten stages", (4, 7)),
        hypothesis="Early pruning cuts traffic, late pruning does not.",
        expect={"less_traffic": ("G2",)},
        added=0.2,
        speedup=1.3,
        versus="GB",
    ),
    "G2": Row(
        **_parallel("Only the last two of ten stages", (26, 29)),
        hypothesis="Late pruning does not cut traffic.",
        expect={"speed": "down"},
        added=0.05,
        speedup=1.04,
        versus="GB",
    ),
    "R9": Row(
        **_ratio(0.9),
        hypothesis="The published trade-off.",
        expect={"quality": "up", "speed": "down"},
        added=0.15,
        speedup=1.3,
    ),
    "R9h": Row(
        **_ratio(0.9, stages=5),
        hypothesis="The published trade-off with half the stages.",
        expect={"quality": "up", "speed": "down"},
        added=0.1,
        speedup=1.2,
    ),
    "R9t": Row(
        **{**_ratio(0.9, trained_keep_ratio=0.9), "title": "Keep ratio 0.9, trained at 0.9"},
        hypothesis="The mismatch of training and inference is small.",
        expect={"quality": "same", "speed": "same"},
        added=0.15,
        speedup=1.3,
        versus="R9",
        trained_at=0.9,
        spearman=0.7,
    ),
    "T8": Row(**_total(0.8), hypothesis=None, expect={}, added=0.03, speedup=1.05),
    "T7": Row(**_total(0.7), hypothesis=None, expect={"below": ("T5",)}, added=0.05, speedup=1.1),
    "T5": Row(**_total(0.5), hypothesis=None, expect={"below": ("T3",)}, added=0.1, speedup=1.2),
    "T3": Row(**_total(0.3), hypothesis=None, expect={"above": ("T5",)}, added=0.2, speedup=1.4),
    "L1": Row(
        "Saliency by inner product",
        "target",
        {"saliency": {"measure": "abs"}},
        _TARGET,
        {},
        0.39,
        1.55,
        target=SaliencyTarget(measure="abs"),
        spearman=0.5,
    ),
    "L2": Row(
        "Signed saliency",
        "target",
        {"saliency": {"measure": "signed"}},
        _TARGET,
        {},
        0.42,
        1.55,
        target=SaliencyTarget(measure="signed"),
        spearman=0.2,
    ),
    "L3": Row(
        "Loss over the whole window",
        "target",
        {"saliency": {"loss": "window"}},
        _TARGET,
        {},
        0.4,
        1.55,
        target=SaliencyTarget(loss="window"),
        spearman=0.6,
    ),
}
"""Every row of the full study."""
