"""Figure: speed-up against prompt length."""

import math

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ablations.paper import style
from ablations.paper.drawing.parts import bars, factor_ticks, say_missing
from ablations.paper.summary import Summary


def sweep_figure(summary: Summary) -> Figure:
    """Speed-up of prefill alone, and of prefill and decoding, for each keep ratio."""
    figure, panels = plt.subplots(1, 2, figsize=(style.WIDTH, 2.0), sharey=True)
    ratios = sorted({point.keep_ratio for point in summary.sweeps})
    for axes, kind, title in zip(
        panels, ("prefill", "end_to_end"), ("Prefill", "Prefill and decoding"), strict=True
    ):
        axes.axhline(1, color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
        for ratio, colour in zip(ratios, sns.color_palette("colorblind", len(ratios)), strict=True):
            points = [point for point in summary.sweeps if point.keep_ratio == ratio]
            speeds = [getattr(point, kind) for point in points]
            lengths = [point.tokens for point in points]
            values = [math.exp(speed.value) for speed in speeds]
            marker = style.MARKERS[ratios.index(ratio) % len(style.MARKERS)]
            axes.plot(
                lengths, values, marker=marker, markersize=3, linewidth=0.8, color=colour, label=f"{ratio:g}"
            )
            for length, value, speed in zip(lengths, values, speeds, strict=True):
                axes.errorbar(
                    length, value, yerr=bars(speed, math.exp), capsize=1.5, elinewidth=0.8, color=colour
                )
        axes.set_title(title)
        axes.set_xlabel("Prompt tokens")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted({point.tokens for point in summary.sweeps})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: _tokens(tokens)))
        if not summary.sweeps:
            say_missing(axes)
    panels[0].set_ylabel("Speed-up over unpruned (\u00d7)")
    factor_ticks(
        panels[0],
        "y",
        [math.exp(speed.value) for point in summary.sweeps for speed in (point.prefill, point.end_to_end)],
    )
    if summary.sweeps:
        handles, labels = panels[0].get_legend_handles_labels()
        labels = [f"keep {label}" for label in labels]
        figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=min(4, len(labels)))
    sns.despine(figure)
    return figure


def _tokens(number: float) -> str:
    return f"{number / 1024:g}k" if number >= 1024 and number % 1024 == 0 else f"{number:g}"
