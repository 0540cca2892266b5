"""Figures: priced speed-up of replayed drafts, by length of a line, by threshold, and by shape of a tree."""

import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import say_missing
from ablations.paper.results.grid import GridResult
from ablations.paper.summary import Summary

PRICED = "Priced speed-up (\u00d7)"


def tree_points(summary: Summary) -> pd.DataFrame:
    """One row per tree of the grid: `depth`, `branching`, `tau` and `speedup` (a factor)."""
    points = [
        (point.shape.depth, point.shape.branching, point.tau, math.exp(point.speedup.value))
        for point in summary.tree_grid
        if point.shape.method == "tree"
    ]
    return pd.DataFrame(points, columns=["depth", "branching", "tau", "speedup"])


def grid_figure(summary: Summary) -> Figure:
    """Priced speed-up against the length of a linear draft, and against the threshold of trees."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.1), sharey=True)
    lines = [point for point in summary.tree_grid if point.shape.method == "linear"]
    _curve(left, [(point.shape.depth, point) for point in lines], 0, None)
    left.set_xlabel("Length of a linear draft (K)")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel(PRICED)
    trees = [point for point in summary.tree_grid if point.shape.method == "tree"]
    depth = _usual_depth(summary, [point.shape.depth for point in trees])
    for place, branching in enumerate(sorted({point.shape.branching for point in trees})):
        chosen = [
            (point.tau, point)
            for point in trees
            if point.tau is not None and (point.shape.depth, point.shape.branching) == (depth, branching)
        ]
        _curve(right, chosen, place, f"B = {branching}")
    right.set_xlabel(f"Threshold of trees (D = {depth})" if trees else "Threshold of trees")
    for axes, shown in ((left, lines), (right, trees)):
        axes.axhline(1, color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
        if not shown:
            say_missing(axes)
    if trees:
        right.set_xscale("log")
        taus = sorted({point.tau for point in trees if point.tau is not None})
        right.set_xticks(taus, [f"{tau:g}" for tau in taus], rotation=90)
        right.minorticks_off()
        figure.legend(frameon=False, loc="outside upper center", ncols=3)
    sns.despine(figure)
    return figure


def grid_trees_figure(summary: Summary) -> Figure:
    """Heat map of the priced speed-up over depth and threshold, one panel per branching."""
    points = tree_points(summary)
    branchings = sorted(points["branching"].unique())
    depths = points["depth"].nunique()
    figure, panels = plt.subplots(
        max(1, len(branchings)),
        1,
        figsize=(style.WIDTH, 0.6 + max(1, len(branchings)) * (0.3 + 0.19 * max(depths, 3))),
        sharex=True,
        squeeze=False,
    )
    for axes, branching in zip(panels[:, 0], branchings, strict=False):
        chosen = points[points["branching"] == branching]
        sns.heatmap(
            chosen.pivot_table(index="depth", columns="tau", values="speedup"),
            ax=axes,
            annot=True,
            fmt=".2f",
            annot_kws={"fontsize": 6.5},
            cmap="viridis",
            vmin=points["speedup"].min(),
            vmax=points["speedup"].max(),
            cbar=False,
            linewidths=0.4,
        )
        axes.set_title(f"B = {branching}")
        axes.set_ylabel("Depth D")
        axes.set_xlabel("")
        axes.tick_params(length=0)
        axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    panels[-1, 0].set_xlabel("Threshold")
    if not branchings:
        say_missing(panels[0, 0])
    return figure


def grid_lengths_figure(summary: Summary) -> Figure:
    """Acceptance length and repetition of the full method's tree against generated length."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.3), sharex=True)
    points = [point for point in summary.length_grid if point.shape.method == "tree"]
    kinds = list(dict.fromkeys(point.kind for point in points))
    for place, kind in enumerate(kinds):
        line = [point for point in points if point.kind == kind]
        settings = {
            "color": style.GREY if kind is None else style.PALETTE[(place - 1) % len(style.PALETTE)],
            "marker": style.MARKERS[place % len(style.MARKERS)],
            "markersize": 3,
            "linewidth": 1.4 if kind is None else 0.8,
        }
        lengths = [point.tokens for point in line]
        left.plot(lengths, [point.tokens_per_forward for point in line], label=kind or "all", **settings)
        right.plot(lengths, [100 * point.repeated_4grams for point in line], **settings)
    for axes, label in ((left, "Tokens per forward"), (right, "Repeated 4-grams (%)")):
        axes.set_xlabel("Generated tokens")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * max((top for line in axes.lines for top in line.get_ydata()), default=1) or 1)
        if not points:
            say_missing(axes)
    if points:
        left.set_xscale("log", base=2)
        lengths = sorted({point.tokens for point in points})
        left.set_xticks(lengths, [str(length) for length in lengths])
        left.minorticks_off()
        figure.legend(frameon=False, loc="outside upper center", ncols=len(kinds))
    sns.despine(figure)
    return figure


def _usual_depth(summary: Summary, depths: Iterable[int]) -> int | None:
    """The full method's depth, or of those in the grid the one nearest to it."""
    usual = next((point.shape.depth for point in summary.length_grid if point.shape.method == "tree"), 0)
    return min(depths, key=lambda depth: abs(depth - usual), default=None)


def _curve(axes: Axes, points: list[tuple[float, GridResult]], place: int, label: str | None) -> None:
    colour = style.PALETTE[place % len(style.PALETTE)]
    places = [where for where, _ in points]
    lows = [point.speedup.low for _, point in points]
    highs = [point.speedup.high for _, point in points]
    if None not in (*lows, *highs):
        axes.fill_between(
            places,
            [math.exp(low) for low in lows if low is not None],
            [math.exp(high) for high in highs if high is not None],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.plot(
        places,
        [math.exp(point.speedup.value) for _, point in points],
        marker=style.MARKERS[place % len(style.MARKERS)],
        markersize=3,
        linewidth=0.8,
        color=colour,
        label=label,
    )
