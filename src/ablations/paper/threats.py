"""Threats to validity, as far as the records tell them."""

from typing import Any

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
        "grids": bool(summary.tree_grid or summary.length_grid),
        "replayed": max((row.decoding.replayed or 0 for row in drafting), default=0),
        "timed": max((row.decoding.prompts for row in drafting), default=0),
    }
