"""Figure: quality on text against speed over keep ratios."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import bars, say_missing
from ablations.paper.lines import keep_ratio_rows
from ablations.paper.summary import Summary


def keep_ratio_figure(summary: Summary) -> Figure:
    """Quality lost against prefill speed, the unpruned model at the origin of both."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 2.2))
    rows = keep_ratio_rows(summary)
    table = pd.DataFrame(
        [
            {
                "speed": math.exp(row.sdtp.speedup.value),
                "kl": row.sdtp.kl.value,
                "keep": row.sdtp.keep_ratios[0],
            }
            for row in rows
        ],
        columns=["speed", "kl", "keep"],
    )
    axes.axhline(0, color=style.GREY, linewidth=0.6, linestyle=":")
    axes.axvline(1, color=style.GREY, linewidth=0.6, linestyle=":")
    sns.lineplot(data=table, x="speed", y="kl", ax=axes, color=style.BLUE, sort=False, zorder=1)
    for row in rows:
        speed, quality = row.sdtp.speedup, row.sdtp.kl
        assert speed is not None
        axes.errorbar(
            math.exp(speed.value),
            quality.value,
            xerr=bars(speed, math.exp),
            yerr=bars(quality, float),
            fmt="o" if row.change else "D",
            markersize=4,
            capsize=1.5,
            elinewidth=0.8,
            color=style.BLUE if row.change else style.ORANGE,
            zorder=3,
        )
        axes.annotate(
            f"{row.sdtp.keep_ratios[0]:g}",
            (math.exp(speed.value), quality.value),
            xytext=(5, -9),
            textcoords="offset points",
            fontsize=6.5,
        )
    axes.plot(1, 0, marker="s", markersize=4, color=style.GREY, zorder=3)
    axes.annotate(
        "unpruned", (1, 0), xytext=(5, -9), textcoords="offset points", fontsize=6.5, color=style.GREY
    )
    axes.set_xlabel("Prefill speed-up over the unpruned model")
    axes.set_ylabel("KL divergence from\nunpruned (nats per token)")
    axes.margins(x=0.16, y=0.14)
    if not rows:
        say_missing(axes)
    sns.despine(figure)
    return figure
