"""Figure: tokens that enter each layer during prefill."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import factor_ticks, say_missing
from ablations.paper.lines import MOST_LINES, keep_ratio_rows, layer_rows
from ablations.paper.summary import Row, Summary


def living_figure(summary: Summary) -> Figure:
    """Living tokens per layer as a share of the prompt: by keep ratio, and by the layers that prune."""
    figure, panels = plt.subplots(1, 2, figsize=(style.WIDTH, 2.6), sharey=True)
    ratios = [(row, f"{row.sdtp.keep_ratios[0]:g}") for row in keep_ratio_rows(summary)]
    layers = [(row, row.id) for row in layer_rows(summary)]
    _draw(panels[0], ratios, "Keep ratio")
    _draw(panels[1], layers, "Pruning layers")
    panels[0].set_ylabel("Living tokens (% of prompt)")
    shares = [share for row, _ in (*ratios, *layers) for share in row.sdtp.living]
    factor_ticks(panels[0], "y", [100 * share for share in shares] or [1, 100])
    panels[0].set_ylim(80 * min(shares, default=0.01), 125)
    sns.despine(figure)
    return figure


def _draw(axes: Axes, lines: Sequence[tuple[Row, str]], title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("Layer")
    for place, (row, name) in enumerate(lines[:MOST_LINES]):
        axes.step(
            range(len(row.sdtp.living)),
            [100 * share for share in row.sdtp.living],
            where="mid",
            linewidth=1.4 if not row.change else 0.9,
            linestyle=("-", "--", ":", "-.")[place % 4],
            color=style.PALETTE[place],
            label=name,
        )
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    if lines:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, handlelength=1.6)
    else:
        say_missing(axes)
