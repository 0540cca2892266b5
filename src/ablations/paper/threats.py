"""Threats to validity, as far as the records tell them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ablations.evidence.statistics import Comparison
from ablations.paper.summary import Summary


def threats(summary: Summary) -> dict[str, Any]:
    """What limits the conclusions of this study; templates put it into words."""
    drafting = [row for row in summary.rows if row.decoding is not None and not row.decoding.autoregressive]
    return {
        "models": list(dict.fromkeys(summary.facts.values())),
        "devices": list(dict.fromkeys(machine.device for machine in summary.machines)),
        "hosts": len({machine.host for machine in summary.machines}),
        "gpu": any(machine.device_type == "cuda" for machine in summary.machines),
        "dtypes": list(dict.fromkeys(machine.dtype for machine in summary.machines)),
        "most_repeated": max(drafting, key=lambda row: row.decoding.repeated_4grams, default=None),
        "least": min((item.estimate.n for item in summary.comparisons), default=0),
        "quality": _detectable(summary.comparisons, "quality"),
        "speed": _detectable(summary.comparisons, "speed"),
        "priced": bool(summary.tree_grid or summary.length_grid),
    }


def _detectable(comparisons: Iterable[Comparison], measure: str) -> dict[str, Any] | None:
    """Median and largest minimum detectable effect on a measure; None where none is defined."""
    found = [(item.mde, item) for item in comparisons if item.measure == measure and item.mde is not None]
    if not found:
        return None
    _, worst = max(found, key=lambda pair: pair[0])
    return {"median": float(np.median([mde for mde, _ in found])), "worst": worst, "count": len(found)}
