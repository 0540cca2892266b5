"""Figure: the forward ablation of decoding."""

import math

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import bars, factor_ticks, say_missing
from ablations.paper.summary import Row, Summary
from ablations.paper.tables import decoding_rows


def forward_figure(summary: Summary) -> Figure:
    """Speed-up of each forward row, and the factor that each step contributes."""
    rows = decoding_rows(summary, summary.settings.forward)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.WIDTH, 0.7 + 0.3 * max(len(rows), 3)), sharey=True
    )
    shown = [(place, row) for place, row in enumerate(rows) if row.decoding is not None]
    for place, row in shown:
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
    for place, row in shown:
        effect = summary.comparison(row.id, row.versus, "speed") if row.versus else None
        before = summary.row(row.versus) if row.versus else None
        if effect is None or before is None or before.decoding is None:
            continue
        # The speed-up of the row measured on fewer prompts is the one that holds for those both have.
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
    speeds = [math.exp(row.decoding.speedup.value) for _, row in shown]
    for axes, title in ((left, "Speed-up over AR (\u00d7)"), (right, "Contribution (\u00d7)")):
        axes.axvline(1, color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
        axes.set_xlabel(title)
        factor_ticks(axes, "x", speeds)
        if not shown:
            say_missing(axes)
    low, high = min([1.0, *speeds]), max([1.0, *speeds])
    ends = [
        math.exp(end)
        for _, row in shown
        for end in (row.decoding.speedup.low, row.decoding.speedup.high)
        if end is not None
    ]
    left.set_xlim(min([low, *ends]) / 1.25, max([high, *ends]) * 1.25)
    # Room for the factors that stand right of the bars.
    right.set_xlim(low / 1.25, high * (high / low) ** 0.5 * 1.25)
    left.set_yticks(range(len(rows)), [_label(row) for row in rows])
    right.tick_params(axis="y", left=False)
    left.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    sns.despine(figure)
    return figure


def _label(row: Row) -> str:
    state = "" if row.decoding is not None else f"\n({'crashed' if row.status == 'crashed' else 'not run'})"
    return f"{row.step or row.title}{state}"
