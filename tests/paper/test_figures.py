"""Figures: what they show, and that the same study gives the same bytes."""

import math

import matplotlib.pyplot as plt
import pytest

from ablations.paper import style
from ablations.paper.drawing.bound import bound_figure, bound_points
from ablations.paper.drawing.depth import depth_figure
from ablations.paper.drawing.grid import (
    grid_figure,
    grid_lengths_figure,
    grid_trees_figure,
    tree_points,
)
from ablations.paper.drawing.keep_ratio import keep_ratio_figure, keep_ratio_rows
from ablations.paper.drawing.sweep import sweep_figure
from ablations.paper.drawing.waterfall import backward_figure, forward_figure
from ablations.paper.figures import FIGURES, write_figures
from ablations.paper.formatting import FEWEST_ROUNDS
from tests.paper.synthetic_grid import LENGTHS


@pytest.fixture(autouse=True)
def _closed():
    style.apply()
    yield
    plt.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_keep_ratio_figure_shows_the_sweep_and_nothing_else(study):
    assert [row.id for row in keep_ratio_rows(study.summary)] == ["A9", "baseline", "A7"]
    axes = keep_ratio_figure(study.summary).axes[0]
    assert texts(axes) == ["0.8", "0.7", "0.5", "unpruned"]


def test_the_forward_figure_shows_every_row_and_each_contribution(study):
    left, right = forward_figure(study.summary).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "AR",
        "+ drafter (n-gram)",
        "+ tree",
        "+ pruning",
    ]
    assert [text[:1] for text in texts(right)] == ["\u00d7"] * 3


def test_the_backward_figure_starts_at_the_full_method(study):
    left, right = backward_figure(study.summary).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == [
        "full method",
        "\u2212 tree",
        "\u2212 pruning",
        "\u2212 branching",
        "\u2212 depth",
        "\u2212 drafter",
    ]
    assert len(texts(right)) == 5


def test_acceptance_by_depth_is_of_what_was_tested(study):
    rows, kinds = depth_figure(study.summary).axes
    assert [line.get_label() for line in kinds.lines] == ["code", "docs"]
    assert [line.get_label() for line in rows.lines] == ["F2", "F3", "F4"]
    (full,) = [line for line in rows.lines if line.get_label() == "F4"]
    depths = study.summary.row("F4").decoding.depths
    assert full.get_ydata()[0] == depths[0].accepted / depths[0].tested
    assert len(full.get_ydata()) == sum(item.tested >= FEWEST_ROUNDS for item in depths) < len(depths)


def test_the_grid_shows_every_line_threshold_and_tree(whole):
    left, right = grid_figure(whole.summary).axes
    assert list(left.lines[0].get_xdata()) == list(range(2, 9))
    assert [line.get_label() for line in right.lines[:3]] == ["B = 1", "B = 2", "B = 3"]
    assert "D = 7" in right.get_xlabel()
    panels = grid_trees_figure(whole.summary).axes
    assert [axes.get_title() for axes in panels] == ["B = 1", "B = 2", "B = 3"]
    points = tree_points(whole.summary)
    for axes, branching in zip(panels, (1, 2, 3), strict=True):
        chosen = points[points["branching"] == branching].sort_values(["depth", "tau"])
        assert texts(axes) == [f"{speedup:.2f}" for speedup in chosen["speedup"]]


def test_acceptance_against_length_is_shown_by_kind(whole):
    left, right = grid_lengths_figure(whole.summary).axes
    assert [line.get_label() for line in left.lines] == ["all", "code", "docs"]
    for axes in (left, right):
        assert [list(line.get_xdata()) for line in axes.lines] == [list(LENGTHS)] * 3


def test_figures_are_drawn_for_a_study_without_records(render, tmp_path):
    study = render(missing=("baseline", "A7", "A9", "F1", "F2", "F3", "F4"))
    write_figures(study.summary, tmp_path)
    for figure in (
        keep_ratio_figure(study.summary),
        bound_figure(study.summary),
        sweep_figure(study.summary),
    ):
        assert "no record yet" in texts(figure.axes[0])


def test_one_row_and_no_interval_are_drawn(render, tmp_path):
    study = render(documents=1, missing=("A9", "F3"))
    write_figures(study.summary, tmp_path)
    assert texts(keep_ratio_figure(study.summary).axes[0])[0] == "0.7"


def test_the_bound_is_measured_over_ideal(study):
    points = bound_points(study.summary)
    assert points["keep"].tolist() == [0.8, 0.7, 0.5]
    for name, point in zip(("A9", "baseline", "A7"), points.itertuples(), strict=True):
        result = study.summary.row(name).sdtp
        measured = math.exp(result.speedup.value)
        assert math.exp(point.share.value) == pytest.approx(measured * result.flops_share)
        assert math.exp(point.share.high) == pytest.approx(math.exp(result.speedup.high) * result.flops_share)


def test_the_bound_has_a_line_per_prompt_length_and_one_for_the_bound(whole):
    axes = bound_figure(whole.summary).axes[0]
    points = bound_points(whole.summary)
    assert points.groupby("tokens").size().to_dict() == {512: 3, 1024: 8, 2048: 3, 4096: 3}
    assert axes.lines[0].get_ydata() == [1, 1]
    assert texts(axes) == ["0.3", "0.5", "0.7", "0.8", "0.9"]


def test_the_sweep_shows_every_length_and_ratio_twice(whole):
    for axes in sweep_figure(whole.summary).axes:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
        assert len(lines) == 3
        assert list(lines[0].get_xdata()) == [512, 1024, 2048, 4096]


def test_figures_fit_a_column_and_are_legible(whole):
    for draw in FIGURES.values():
        figure = draw(whole.summary)
        assert figure.get_figwidth() <= 3.3
        sizes = [text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()]
        assert min(sizes) >= 6


def test_the_same_summary_gives_the_same_bytes(study, tmp_path):
    for folder in ("one", "two"):
        write_figures(study.summary, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png"))
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "one" / "forward.pdf").read_bytes()
