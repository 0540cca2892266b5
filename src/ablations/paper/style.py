"""One look for every figure: column width, legible in print, colours that the colour-blind tell apart."""

from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from ablations.core.files import atomic_path

WIDTH = 3.3
"""Width of a column, inches."""

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
GREY = (0.45, 0.45, 0.45)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def apply() -> None:
    """Set the style; no figure draws with anything else, whatever a user's matplotlibrc says."""
    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    sns.set_theme(
        context="paper",
        style="ticks",
        palette="colorblind",
        rc={
            "font.family": "sans-serif",
            # Shipped with matplotlib, so that every machine draws the same.
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 7,
            "axes.labelsize": 7,
            "axes.titlesize": 7,
            "xtick.labelsize": 6.5,
            "ytick.labelsize": 6.5,
            "legend.fontsize": 6.5,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "lines.linewidth": 1.0,
            "pdf.fonttype": 42,
            "savefig.dpi": 300,
            "figure.constrained_layout.use": True,
        },
    )


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.pdf and `name`.png; the same figure gives the same bytes on every run."""
    metadata = {
        "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    for kind, fields in metadata.items():
        with atomic_path(folder / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, metadata=fields)
