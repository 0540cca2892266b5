"""Figure: measured speed-up against the ratio of operations."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ablations.evidence.statistics import Estimate
from ablations.paper import style
from ablations.paper.drawing.parts import bars, factor_ticks, say_missing
from ablations.paper.lines import keep_ratio_rows
from ablations.paper.summary import Summary


def bound_points(summary: Summary) -> pd.DataFrame:
    """One row per timed keep ratio and prompt length, from the study's rows and from the sweeps.

    Sweeps of another device than that of most SDTP experiments are left out.

    Columns: `tokens`, `keep`, `ideal` (unpruned FLOPs over the arm's) and `share` (estimate of the log of
    the measured speed-up over that ratio).
    """
    points = [
        (summary.sdtp.prompt_tokens, row.sdtp.keep_ratios[0], 1 / row.sdtp.flops_share, row.sdtp.bound)
        for row in keep_ratio_rows(summary)
    ]
    points += [
        (point.tokens, point.keep_ratio, math.exp(point.ideal), _over(point.prefill, point.ideal))
        for point in (() if summary.sweep_elsewhere else summary.sweeps)
    ]
    return pd.DataFrame(points, columns=["tokens", "keep", "ideal", "share"]).sort_values(
        ["tokens", "ideal"], kind="stable", ignore_index=True
    )


def bound_figure(summary: Summary) -> Figure:
    """Measured speed-up over the ratio of operations, one line per prompt length."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 2.2))
    points = bound_points(summary)
    points["reached"] = [math.exp(share.value) for share in points["share"]]
    axes.axhline(1, color=style.GREY, linewidth=0.8, zorder=0)
    lengths = list(dict.fromkeys(points["tokens"]))
    for length, colour in zip(lengths, sns.color_palette("colorblind", len(lengths)), strict=True):
        line = points[points["tokens"] == length]
        axes.plot(line["ideal"], line["reached"], color=colour, linewidth=0.8, zorder=1)
        for place, point in enumerate(line.itertuples()):
            axes.errorbar(
                point.ideal,
                point.reached,
                yerr=bars(point.share, math.exp),
                fmt=style.MARKERS[lengths.index(length) % len(style.MARKERS)],
                markersize=3.5,
                capsize=1.5,
                elinewidth=0.8,
                color=colour,
                label=f"{length} tokens" if place == 0 else None,
                zorder=3,
            )
    # A keep ratio means about the same ideal at every length: one label each, along the top.
    for keep, line in points.groupby("keep"):
        axes.text(
            math.exp(sum(map(math.log, line["ideal"])) / len(line)),
            0.98,
            f"{keep:g}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=6.5,
            color=style.GREY,
        )
    axes.set_xlabel("Operations, unpruned over pruned (\u00d7)")
    axes.set_ylabel("Speed-up over that ratio")
    factor_ticks(axes, "x", points["ideal"])
    axes.set_xlim(0.95, max([1.0, *points["ideal"]]) * 1.25)
    axes.set_ylim(0, max([1.0, *points["reached"]]) * 1.2)
    if points.empty:
        say_missing(axes)
    else:
        figure.legend(frameon=False, loc="outside upper center", ncols=3)
    sns.despine(figure)
    return figure


def _over(speedup: Estimate, ideal: float) -> Estimate:
    ends = {"value": speedup.value, "low": speedup.low, "high": speedup.high}
    return speedup.model_copy(
        update={name: None if end is None else end - ideal for name, end in ends.items()}
    )
