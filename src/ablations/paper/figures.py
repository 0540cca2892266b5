"""Rule `figures`: the summary as vector figures of column width."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from ablations.core.errors import one_line_errors, require_out
from ablations.core.record import read_contract
from ablations.paper import style
from ablations.paper.drawing.bound import bound_figure
from ablations.paper.drawing.depth import depth_figure
from ablations.paper.drawing.grid import grid_figure, grid_lengths_figure, grid_trees_figure
from ablations.paper.drawing.keep_ratio import keep_ratio_figure
from ablations.paper.drawing.living import living_figure
from ablations.paper.drawing.losses import losses_figure
from ablations.paper.drawing.rounds import rounds_figure
from ablations.paper.drawing.saliency import saliency_figure
from ablations.paper.drawing.sweep import sweep_figure
from ablations.paper.drawing.traffic import traffic_figure
from ablations.paper.drawing.waterfall import backward_figure, forward_figure
from ablations.paper.summary import Summary

FIGURES = {
    "keep_ratio": keep_ratio_figure,
    "bound": bound_figure,
    "sweep": sweep_figure,
    "losses": losses_figure,
    "living": living_figure,
    "saliency": saliency_figure,
    "traffic": traffic_figure,
    "rounds": rounds_figure,
    "forward": forward_figure,
    "depth": depth_figure,
    "backward": backward_figure,
    "grid": grid_figure,
    "grid_trees": grid_trees_figure,
    "grid_lengths": grid_lengths_figure,
}
"""Every figure by name; one without data says so."""


def write_figures(summary: Summary, folder: Path) -> None:
    """Draw every figure into `folder`."""
    style.apply()
    for name, draw in FIGURES.items():
        figure = draw(summary)
        style.save(figure, folder, name)
        plt.close(figure)


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
        require_out(arguments.out / "any")
        write_figures(read_contract(arguments.summary, Summary), arguments.out)


if __name__ == "__main__":
    main()
