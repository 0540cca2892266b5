"""Figure: what the time of a round of speculative decoding is spent on."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import say_missing
from ablations.paper.summary import Summary
from ablations.paper.tables import drafting_rows

PHASES = (("draft", "drafting"), ("verify", "target forward"), ("bookkeeping", "rest"))


def rounds_figure(summary: Summary) -> Figure:
    """Shares of drafting, of the target's forward and of all else, for every drafting arm."""
    rows = [
        row
        for row in drafting_rows(summary)
        if row.decoding is not None and row.decoding.draft_share is not None
    ]
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.8 + 0.19 * max(len(rows), 5)))
    colours = (style.ORANGE, style.BLUE, style.GREY)
    starts = [0.0] * len(rows)
    for (phase, name), colour, hatch in zip(PHASES, colours, ("", "", "////"), strict=True):
        shares = [100 * getattr(row.decoding, f"{phase}_share") for row in rows]
        axes.barh(
            range(len(rows)),
            shares,
            left=starts,
            height=0.7,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            label=name,
        )
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    axes.set_yticks(range(len(rows)), [row.id for row in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Time of the rounds (%)")
    if rows:
        figure.legend(frameon=False, loc="outside upper center", ncols=3)
    else:
        say_missing(axes)
    sns.despine(figure)
    return figure
