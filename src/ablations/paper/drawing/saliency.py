"""Figure: which tokens of a prompt are salient at each pruning layer, and how many."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import say_missing
from ablations.paper.summary import Summary


def saliency_figure(summary: Summary) -> Figure:
    """Quantiles of the saliency of one prompt's tokens, and the share of salient tokens of each layer."""
    found = summary.saliency
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.WIDTH, 2.2), gridspec_kw={"width_ratios": (1.7, 1)}
    )
    if found is None:
        say_missing(left)
        say_missing(right)
        return figure
    sns.heatmap(
        np.array(found.tokens),
        ax=left,
        cmap="cividis",
        vmin=0,
        vmax=1,
        rasterized=True,
        cbar_kws={"label": "Quantile of saliency", "location": "top", "aspect": 30, "pad": 0.03},
    )
    left.set_xlabel("Token of the prompt")
    left.set_ylabel("Layer")
    right.set_xlabel("Salient tokens (%)")
    count = len(found.tokens[0])
    ticks = range(0, count, max(1, count // 4))
    left.set_xticks([tick + 0.5 for tick in ticks], [str(tick) for tick in ticks], rotation=0)
    places = np.arange(len(found.layers))
    left.set_yticks(places + 0.5, [str(layer) for layer in found.layers], rotation=0)
    spread = np.array(found.salient_by_window) * 100
    right.barh(places, 100 * np.array(found.salient), height=0.65, color=style.BLUE)
    right.errorbar(
        100 * np.array(found.salient),
        places,
        xerr=[
            100 * np.array(found.salient) - spread.min(axis=1),
            spread.max(axis=1) - 100 * np.array(found.salient),
        ],
        fmt="none",
        ecolor=style.GREY,
        elinewidth=0.8,
        capsize=1.5,
    )
    right.set_yticks(places, [str(layer) for layer in found.layers])
    right.set_ylim(len(places) - 0.5, -0.5)
    sns.despine(ax=right)
    return figure
