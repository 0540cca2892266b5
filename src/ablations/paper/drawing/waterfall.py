"""Figures: the forward and the backward ablation of decoding, step by step."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import bars, factor_ticks, say_missing
from ablations.paper.summary import Row, Summary
from ablations.paper.tables import backward_rows, decoding_rows


def forward_figure(summary: Summary) -> Figure:
    """Speed-up of each forward row, and the factor that each step contributes."""
    rows = decoding_rows(summary, summary.settings.forward)
    steps = [(row, row.versus, row.step or row.title) for row in rows]
    return _waterfall(summary, steps, "Speed-up by step (\u00d7)")


def backward_figure(summary: Summary) -> Figure:
    """Speed-up of the full method and of what is left without each component, and the factor in between."""
    full = summary.settings.full_method
    steps = [
        (row, None, "full method")
        if row.id == full
        else (row, full, "\u2212 " + (row.step or row.title).removeprefix("- "))
        for row in backward_rows(summary)
    ]
    return _waterfall(summary, steps, "Speed-up without it (\u00d7)")


def _waterfall(summary: Summary, steps: Sequence[tuple[Row, str | None, str]], title: str) -> Figure:
    """Rows with the experiment that each is measured against, and their labels."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.WIDTH, 0.7 + 0.3 * max(len(steps), 3)), sharey=True
    )
    shown = [(place, row, versus) for place, (row, versus, _) in enumerate(steps) if row.decoding is not None]
    for place, row, _ in shown:
        speed = row.decoding.speedup
        full = row.id == summary.settings.full_method
        left.errorbar(
            math.exp(speed.value),
            place,
            xerr=bars(speed, math.exp),
            fmt="D" if full else "o",
            markersize=3,
            capsize=1.5,
            elinewidth=0.8,
            color=style.ORANGE if full else style.BLUE,
        )
    for place, row, versus in shown:
        effect = summary.comparison(row.id, versus, "speed") if versus else None
        before = summary.row(versus) if versus else None
        if effect is None or before is None or before.decoding is None:
            continue
        # The speed-up of the row timed on fewer prompts is the one that holds for those both have.
        end = row.decoding.speedup.value
        start = end - effect.estimate.value
        if before.decoding.prompts < row.decoding.prompts:
            start = before.decoding.speedup.value
            end = start + effect.estimate.value
        gain = effect.estimate.value >= 0
        right.barh(
            place,
            math.exp(end) - math.exp(start),
            left=math.exp(start),
            height=0.5,
            color=style.GREEN if gain else style.RED,
            hatch=None if gain else "////",
            edgecolor="white",
            linewidth=0,
        )
        right.annotate(
            f"\u00d7{math.exp(effect.estimate.value):.2f}",
            (math.exp(max(start, end)), place),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
        )
    speeds = [math.exp(row.decoding.speedup.value) for _, row, _ in shown]
    for axes, label in ((left, "Speed-up over AR (\u00d7)"), (right, title)):
        axes.axvline(1, color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
        axes.set_xlabel(label)
        factor_ticks(axes, "x", speeds)
        if not shown:
            say_missing(axes)
    low, high = min([1.0, *speeds]), max([1.0, *speeds])
    ends = [
        math.exp(end)
        for _, row, _ in shown
        for end in (row.decoding.speedup.low, row.decoding.speedup.high)
        if end is not None
    ]
    left.set_xlim(min([low, *ends]) / 1.25, max([high, *ends]) * 1.25)
    # Room for the factors that stand right of the bars.
    right.set_xlim(low / 1.25, high * (high / low) ** 0.5 * 1.25)
    left.set_yticks(range(len(steps)), [_label(row, name) for row, _, name in steps])
    right.tick_params(axis="y", left=False)
    left.set_ylim(max(len(steps), 1) - 0.5, -0.5)
    sns.despine(figure)
    return figure


def _label(row: Row, name: str) -> str:
    state = "" if row.decoding is not None else f"\n({'crashed' if row.status == 'crashed' else 'not run'})"
    return f"{name}{state}"
