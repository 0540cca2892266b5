"""Figures: what they show, and that the same study gives the same bytes."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from safetensors.numpy import save_file

from ablations.core.artefact import Manifest
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.core.record import Digests
from ablations.paper import style
from ablations.paper.collecting.models import saliency_map
from ablations.paper.drawing.bound import bound_figure, bound_points
from ablations.paper.drawing.depth import depth_figure
from ablations.paper.drawing.grid import grid_figure, grid_lengths_figure, grid_trees_figure, tree_points
from ablations.paper.drawing.keep_ratio import keep_ratio_figure
from ablations.paper.drawing.living import living_figure
from ablations.paper.drawing.losses import losses_figure
from ablations.paper.drawing.rounds import rounds_figure
from ablations.paper.drawing.saliency import saliency_figure
from ablations.paper.drawing.sweep import sweep_figure
from ablations.paper.drawing.traffic import traffic_figure
from ablations.paper.drawing.waterfall import backward_figure, forward_figure
from ablations.paper.figures import FIGURES, write_figures
from ablations.paper.formatting import FEWEST_ROUNDS
from ablations.paper.lines import keep_ratio_rows
from ablations.paper.tables import pipeline_rows
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
    assert [line.get_label() for line in kinds.lines] == ["code", "docs", "chat"]
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


def test_grids_of_more_branchings_and_kinds_than_colours_are_drawn(whole):
    tree = next(point for point in whole.summary.tree_grid if point.shape.method == "tree")
    many = tuple(
        tree.model_copy(update={"shape": tree.shape.model_copy(update={"branching": place})})
        for place in range(1, 13)
    )
    line = next(point for point in whole.summary.length_grid if point.shape.method == "tree")
    kinds = tuple(line.model_copy(update={"kind": f"kind {place}"}) for place in range(12))
    summary = whole.summary.model_copy(update={"tree_grid": many, "length_grid": (line, *kinds)})
    assert len(grid_figure(summary).axes[1].lines) == 13
    assert len(grid_lengths_figure(summary).axes[0].lines) == 13


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


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes cover one another by more than a point either way."""
    figure.canvas.draw()
    unseen = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    shown = [
        text
        for text in figure.findobj(plt.Text)
        if text not in unseen
        and text.get_text().strip()
        and text.get_visible()
        and text.get_window_extent().width > 0
    ]
    boxes = [text.get_window_extent() for text in shown]
    slack = figure.dpi / 72
    return [
        (shown[one].get_text(), shown[other].get_text())
        for one, other in itertools.combinations(range(len(shown)), 2)
        if min(boxes[one].x1, boxes[other].x1) - max(boxes[one].x0, boxes[other].x0) > slack
        and min(boxes[one].y1, boxes[other].y1) - max(boxes[one].y0, boxes[other].y0) > slack
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_column_and_are_legible(whole, name, tmp_path):
    table, _ = saliency_table(tmp_path)
    figure = FIGURES[name](whole.summary.model_copy(update={"saliency": saliency_map(str(table))}))
    assert figure.get_figwidth() <= 3.3
    sizes = [text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()]
    assert min(sizes) >= 6
    assert overlapping(figure) == []
    assert all(axes.has_data() for axes in figure.axes)


def test_living_tokens_are_those_of_the_records(whole):
    ratios, layers = living_figure(whole.summary).axes
    for line, row in zip(ratios.lines, keep_ratio_rows(whole.summary), strict=False):
        (record,) = (json.loads(Path(file.path).read_text()) for file in row.files[:1])
        sample = record["samples"][0]
        assert line.get_ydata()[-1] == pytest.approx(100 * sample["living"][-1] / sample["prompt_tokens"])
    assert layers.lines[0].get_label() == "baseline"


def test_losses_show_quality_and_order(whole):
    left, right = losses_figure(whole.summary).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels[0] == "LM + MSE + rank (baseline)"
    assert "LM (A5)" in labels
    assert len(right.containers) == len(labels)


def test_traffic_shows_every_boundary(whole):
    axes = traffic_figure(whole.summary).axes[0]
    rows = [row for row in pipeline_rows(whole.summary) if row.sdtp.pipeline.boundary_bytes]
    assert len(axes.patches) == 2 * sum(len(row.sdtp.pipeline.boundary_bytes) for row in rows)
    pipelines = [row.sdtp.pipeline for row in rows]
    shares = [sum(item.boundary_bytes) / sum(item.reference_boundary_bytes) for item in pipelines]
    assert texts(axes) == [f"{100 * share:.0f}%" for share in shares]


def test_the_time_of_rounds_adds_up(whole):
    axes = rounds_figure(whole.summary).axes[0]
    ends = [patch.get_x() + patch.get_width() for patch in axes.containers[2]]
    assert ends == pytest.approx([100] * len(ends))


def saliency_table(folder: Path) -> tuple[Path, np.ndarray]:
    """A table of three windows, two of them held out, of which the last two tokens are never pruned."""
    saliency = np.random.default_rng(0).exponential(size=(3, 2, 12)).astype(np.float32)
    tensors = {"saliency": saliency, "heldout": np.array([False, True, True])}
    save_file(tensors, folder / "saliency.safetensors")
    manifest = Manifest(
        module="ablations.sdtp.saliency",
        spec={"layers": [4, 7], "continuation_tokens": 2},
        files={"saliency.safetensors": sha256_file(folder / "saliency.safetensors")},
        facts={"documents": ["a", "b", "c"]},
        seconds=1.0,
        digests=Digests(job="0" * 16, spec="0", code="0", inputs={}, pins={}),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder / "manifest.json", saliency


def test_salient_tokens_are_counted_from_the_table(study, tmp_path):
    path, saliency = saliency_table(tmp_path)
    found = saliency_map(str(path))
    assert (found.document, found.windows, found.layers) == ("b", 2, (4, 7))
    for layer in range(2):
        shares = []
        for window in (1, 2):
            values = np.sort(saliency[window, layer, :10])[::-1].astype(float)
            needed = next(n for n in range(1, 11) if values[:n].sum() >= 0.8 * values.sum())
            shares.append(needed / 10)
        assert found.salient[layer] == pytest.approx(np.mean(shares))
        assert np.argmax(found.tokens[layer]) == np.argmax(saliency[1, layer, :10])
    shown = saliency_figure(study.summary.model_copy(update={"saliency": found}))
    assert overlapping(shown) == []
    assert saliency_map(None) is None
    (tmp_path / "saliency.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="SHA-256"):
        saliency_map(str(path))


def test_the_same_summary_gives_the_same_bytes(study, tmp_path):
    for folder in ("one", "two"):
        write_figures(study.summary, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png"))
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "one" / "forward.pdf").read_bytes()


def test_what_a_user_sets_for_matplotlib_changes_no_figure(study, tmp_path):
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\naxes.facecolor: red\npdf.compression: 0\nno.such.key: 1\n"
    )
    (tmp_path / "summary.json").write_text(study.summary.model_dump_json())
    write_figures(study.summary, tmp_path / "usual")
    command = [sys.executable, "-m", "ablations.paper.figures", "--summary", "summary.json", "--out", "mine"]
    environment = {**os.environ, "MPLBACKEND": "no_such_backend"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in FIGURES:
        for kind in ("pdf", "png"):
            made, usual = (tmp_path / folder / f"{name}.{kind}" for folder in ("mine", "usual"))
            assert made.read_bytes() == usual.read_bytes()
