"""Figure: what each training loss is worth for quality on text, and for the order of scores."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ablations.paper import style
from ablations.paper.drawing.parts import bars, say_missing
from ablations.paper.results.sdtp import ScorerRanking
from ablations.paper.summary import Row, Summary


def loss_rows(summary: Summary) -> list[Row]:
    """The baseline and the experiments on losses, as far as they ran."""
    return [
        row for row in summary.rows if row.sdtp is not None and (not row.change or row.section == "losses")
    ]


def losses_figure(summary: Summary) -> Figure:
    """KL divergence from the unpruned model, and rank correlation of score and saliency, by losses."""
    rows = loss_rows(summary)
    rankings = {name: item for item in summary.ranking for name in item.experiments}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.WIDTH, 0.8 + 0.27 * max(len(rows), 3)), sharey=True
    )
    for place, row in enumerate(rows):
        colour, marker = (style.BLUE, "o") if row.change else (style.ORANGE, "D")
        options = {"markersize": 3, "capsize": 1.5, "elinewidth": 0.8, "color": colour, "fmt": marker}
        quality = row.sdtp.kl
        left.errorbar(quality.value, place, xerr=bars(quality, float), **options)
        ranking: ScorerRanking | None = rankings.get(row.id)
        if ranking is None:
            continue
        right.errorbar(ranking.spearman.value, place, xerr=bars(ranking.spearman, float), **options)
        right.plot(ranking.spearman_untrained.value, place, marker="|", color=style.GREY, markersize=6)
    left.set_yticks(range(len(rows)), [_trained_on(row) for row in rows])
    left.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    left.set_xlabel("KL from unpruned\n(nats per token)")
    right.set_xlabel("Rank correlation\nwith saliency")
    right.axvline(0, color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
    right.tick_params(axis="y", left=False)
    for axes in (left, right):
        axes.margins(x=0.12)
        if not rows:
            say_missing(axes)
    sns.despine(figure)
    return figure


def _trained_on(row: Row) -> str:
    """Losses that train the row's scorer, and its id."""
    training = row.sdtp.training_losses
    names = {"lm": "LM", "mse": "MSE", "ranking": "rank"}
    used = [name for key, name in names.items() if training is not None and getattr(training, key)]
    return f"{' + '.join(used) or row.title} ({row.id if row.change else 'baseline'})"
