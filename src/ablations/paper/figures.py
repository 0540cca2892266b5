"""Rule `figures`: the summary as vector figures of column width."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ablations.paper import style
from ablations.paper.summary import Row, Summary
from ablations.paper.tables import decoding_rows
from ablations.study.cli import one_line_errors
from ablations.study.record_io import read_contract
from ablations.study.statistics import Estimate


def keep_ratio_rows(summary: Summary) -> list[Row]:
    """The baseline and the experiments that change the keep ratio alone, by falling keep ratio."""
    rows = [
        row
        for row in summary.rows
        if row.sdtp is not None
        and row.sdtp.speedup is not None
        and (
            not row.change
            or (set(row.change) == {"schedule"} and set(row.change["schedule"]) == {"keep_ratio"})
        )
    ]
    return sorted(rows, key=lambda row: -row.sdtp.keep_ratios[0])


def keep_ratio_figure(summary: Summary) -> Figure:
    """Quality lost against prefill speed, the unpruned model at the origin of both."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 2.2))
    rows = keep_ratio_rows(summary)
    table = pd.DataFrame(
        [
            {
                "speed": math.exp(row.sdtp.speedup.value),
                "nll": row.sdtp.quality.value,
                "keep": row.sdtp.keep_ratios[0],
            }
            for row in rows
        ],
        columns=["speed", "nll", "keep"],
    )
    axes.axhline(0, color=style.GREY, linewidth=0.6, linestyle=":")
    axes.axvline(1, color=style.GREY, linewidth=0.6, linestyle=":")
    sns.lineplot(data=table, x="speed", y="nll", ax=axes, color=style.BLUE, sort=False, zorder=1)
    for row in rows:
        speed, quality = row.sdtp.speedup, row.sdtp.quality
        axes.errorbar(
            math.exp(speed.value),
            quality.value,
            xerr=_bars(speed, math.exp),
            yerr=_bars(quality, float),
            fmt="o" if row.change else "D",
            markersize=4,
            capsize=1.5,
            elinewidth=0.8,
            color=style.BLUE if row.change else style.ORANGE,
            zorder=3,
        )
        axes.annotate(
            f"{row.sdtp.keep_ratios[0]:g}" + ("" if row.change else " (baseline)"),
            (math.exp(speed.value), quality.value),
            xytext=(5, -9),
            textcoords="offset points",
            fontsize=6.5,
        )
    axes.plot(1, 0, marker="s", markersize=4, color=style.GREY, zorder=3)
    axes.annotate(
        "unpruned", (1, 0), xytext=(5, 4), textcoords="offset points", fontsize=6.5, color=style.GREY
    )
    axes.set_xlabel("Prefill speed-up over the unpruned model")
    axes.set_ylabel("NLL over unpruned\n(nats per token)")
    axes.margins(x=0.16, y=0.14)
    if not rows:
        _say_missing(axes)
    sns.despine(figure)
    return figure


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
            xerr=_bars(speed, math.exp),
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
        axes.set_xscale("log")
        axes.set_xlabel(title)
        _ticks(axes, speeds)
        if not shown:
            _say_missing(axes)
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


def write_figures(summary: Summary, folder: Path) -> None:
    """Draw every figure into `folder`."""
    style.apply()
    for name, draw in {"keep_ratio": keep_ratio_figure, "forward": forward_figure}.items():
        figure = draw(summary)
        style.save(figure, folder, name)
        plt.close(figure)


def _bars(estimate: Estimate, scale: Callable[[float], float]) -> list[list[float]] | None:
    """Lengths of the two error bars, as matplotlib takes them; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    middle = scale(estimate.value)
    # An interval of resampled means can miss the mean by a rounding error; a length cannot be negative.
    return [[max(0.0, middle - scale(estimate.low))], [max(0.0, scale(estimate.high) - middle)]]


def _label(row: Row) -> str:
    state = "" if row.decoding is not None else f"\n({'crashed' if row.status == 'crashed' else 'not run'})"
    return f"{row.step or row.title}{state}"


def _ticks(axes: Axes, speeds: Sequence[float]) -> None:
    """Round factors that lie in the range of the data."""
    low, high = min([1.0, *speeds]) / 1.25, max([1.0, *speeds]) * 1.25
    round_ones = [factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= factor <= high]
    axes.xaxis.set_major_locator(FixedLocator(round_ones))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def _say_missing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no record yet", transform=axes.transAxes, ha="center", va="center", color=style.GREY)


def main() -> None:
    """Command line of the rule `figures`."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.paper.figures",
        description="Draw the figures of a study.",
        epilog="example: python -m ablations.paper.figures --summary results/summary.json"
        " --out paper/figures",
    )
    parser.add_argument("--summary", type=Path, required=True, help="output of ablations.paper.collect")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the figures into")
    arguments = parser.parse_args()
    with one_line_errors(arguments.out):
        write_figures(read_contract(arguments.summary, Summary), arguments.out)


if __name__ == "__main__":
    main()
