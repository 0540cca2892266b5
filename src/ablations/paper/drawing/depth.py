"""Figure: how often the target accepts what is drafted, by depth."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import say_missing
from ablations.paper.formatting import FEWEST_ROUNDS
from ablations.paper.results.decoding import DepthCount
from ablations.paper.summary import Row, Summary
from ablations.paper.tables import decoding_rows

Line = tuple[str, Sequence[DepthCount]]


def depth_figure(summary: Summary) -> Figure:
    """Conditional acceptance of the forward rows, and of the full method by kind of prompts."""
    figure, panels = plt.subplots(1, 2, figsize=(style.WIDTH, 2.2), sharey=True, sharex=True)
    full = summary.row(summary.settings.full_method)
    kinds = full.decoding.kinds if full is not None and full.decoding is not None else ()
    rows = drafting_forward_rows(summary)
    lines: tuple[list[Line], list[Line]] = (
        [(row.id, row.decoding.depths) for row in rows],
        [(item.kind, item.depths) for item in kinds],
    )
    for axes, chosen, title in zip(panels, lines, ("Forward rows", "Full method"), strict=True):
        _draw(axes, chosen)
        axes.set_title(title)
    panels[0].set_ylabel("Accepted, if all above is")
    panels[0].set_ylim(0, 1.03)
    sns.despine(figure)
    return figure


def drafting_forward_rows(summary: Summary) -> list[Row]:
    """Forward rows that draft and ran; of those that accept the same at every depth, the first."""
    found: dict[Sequence[DepthCount], Row] = {}
    for row in decoding_rows(summary, summary.settings.forward):
        if row.decoding is not None and row.decoding.depths:
            found.setdefault(row.decoding.depths, row)
    return list(found.values())


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    colours = sns.color_palette("colorblind", len(lines))
    for place, ((name, depths), colour) in enumerate(zip(lines, colours, strict=True)):
        shares = [item.accepted / item.tested for item in depths if item.tested >= FEWEST_ROUNDS]
        axes.plot(
            range(1, len(shares) + 1),
            shares,
            marker=style.MARKERS[place % len(style.MARKERS)],
            markersize=3,
            linewidth=0.8,
            color=colour,
            label=name,
        )
    axes.set_xlabel("Depth")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    if lines:
        axes.legend(frameon=False, loc="lower right")
    else:
        say_missing(axes)
