"""Figure: bytes of hidden states that cross each boundary between ranks."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import say_missing
from ablations.paper.summary import Summary
from ablations.paper.tables import pipeline_rows


def traffic_figure(summary: Summary) -> Figure:
    """Bytes over each boundary, pruned and unpruned; a group per experiment over ranks."""
    rows = [
        row for row in pipeline_rows(summary) if row.sdtp is not None and row.sdtp.pipeline.boundary_bytes
    ]
    steps = [(row, place) for row in rows for place in range(len(row.sdtp.pipeline.boundary_bytes))]
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.8 + 0.26 * max(len(steps), 3)))
    unit, name = _unit(
        max((amount for row in rows for amount in row.sdtp.pipeline.reference_boundary_bytes), default=1)
    )
    for position, (row, place) in enumerate(steps):
        pipeline = row.sdtp.pipeline
        sent, unpruned = pipeline.boundary_bytes[place], pipeline.reference_boundary_bytes[place]
        first = position == 0
        axes.barh(
            position,
            unpruned / unit,
            height=0.7,
            facecolor="white",
            edgecolor=style.GREY,
            linewidth=0.8,
            label="unpruned" if first else None,
        )
        axes.barh(position, sent / unit, height=0.45, color=style.BLUE, label="pruned" if first else None)
        axes.annotate(
            f"{100 * sent / unpruned:.0f}%",
            (max(sent, unpruned) / unit, position),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
        )
    several = any(len(row.sdtp.pipeline.boundary_bytes) > 1 for row in rows)
    axes.set_yticks(
        range(len(steps)),
        [f"{row.id}, boundary {place + 1}" if several else row.id for row, place in steps],
    )
    axes.set_ylim(max(len(steps), 1) - 0.5, -0.5)
    axes.set_xlabel(f"Hidden states over the boundary ({name}, mean over prompts)")
    axes.margins(x=0.12)
    if steps:
        figure.legend(frameon=False, loc="outside upper center", ncols=2)
    else:
        say_missing(axes)
    sns.despine(figure)
    return figure


def _unit(largest: float) -> tuple[int, str]:
    return (2**20, "MiB") if largest >= 2**20 else (2**10, "KiB") if largest >= 2**10 else (1, "bytes")
