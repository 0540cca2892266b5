"""Figures: what they show, and that the same study gives the same bytes."""

import matplotlib.pyplot as plt
import pytest

from ablations.paper import style
from ablations.paper.figures import forward_figure, keep_ratio_figure, keep_ratio_rows, write_figures


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
    assert texts(axes) == ["0.8", "0.7 (baseline)", "0.5", "unpruned"]


def test_the_forward_figure_shows_every_row_and_each_contribution(study):
    left, right = forward_figure(study.summary).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "AR",
        "+ drafter (n-gram)",
        "+ tree",
        "+ pruning",
    ]
    assert [text[:1] for text in texts(right)] == ["\u00d7"] * 3


def test_figures_are_drawn_for_a_study_without_records(render, tmp_path):
    study = render(missing=("baseline", "A7", "A9", "F1", "F2", "F3", "F4"))
    write_figures(study.summary, tmp_path)
    assert "no record yet" in texts(keep_ratio_figure(study.summary).axes[0])


def test_one_row_and_no_interval_are_drawn(render, tmp_path):
    study = render(documents=1, missing=("A9", "F3"))
    write_figures(study.summary, tmp_path)
    assert texts(keep_ratio_figure(study.summary).axes[0])[0] == "0.7 (baseline)"


def test_figures_fit_a_column_and_are_legible(study):
    for figure in (keep_ratio_figure(study.summary), forward_figure(study.summary)):
        assert figure.get_figwidth() <= 3.3
        sizes = [text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()]
        assert min(sizes) >= 6


def test_the_same_summary_gives_the_same_bytes(study, tmp_path):
    for folder in ("one", "two"):
        write_figures(study.summary, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["forward.pdf", "forward.png", "keep_ratio.pdf", "keep_ratio.png"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "one" / "forward.pdf").read_bytes()
