"""How well scores rank the tokens of a prompt: Spearman, NDCG, and the overlap of what is kept."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from ablations.lm.layered import LayeredLM
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.training.states import unpruned_states
from ablations.study.contracts.sdtp import PrunerSpec, Ranking, stage_counts

Values = NDArray[np.float64]


@torch.no_grad()
def rank_heldout(
    lm: LayeredLM, table: SaliencyTable, spec: PrunerSpec, pruners: Sequence[Pruner]
) -> list[list[Ranking]]:
    """Ranking of each pruner on each held-out window, all from one unpruned forward per window.

    Scores and saliency are both of the unpruned model's states, so pruners are compared on equal inputs.
    Protected tokens are left out: nobody ranks them; so is a stage without a saliency.

    Args:
        lm: Frozen model.
        table: Its held-out windows are used.
        spec: What the pruners were trained for: layers, keep ratios, protected tokens.
        pruners: Pruners for `spec.layers`.

    Returns:
        One list per pruner, with one entry per held-out window; none where no stage has a saliency.
    """
    prompt = table.ids.shape[1] - table.spec.continuation_tokens
    protected = spec.preserve.of(prompt)
    free = slice(protected.head, prompt - protected.tail)
    counts = stage_counts(prompt, spec.keep_ratios, protected.tokens)
    keep = [count - protected.tokens for count in counts]
    found: list[list[Ranking]] = [[] for _ in pruners]
    stages = table.spec.target.stages(spec.layers, lm.num_layers)
    if not stages:
        return found
    for window in table.heldout.nonzero()[:, 0].tolist():
        ids = table.ids[window, :prompt].to(lm.device)[None]
        states = unpruned_states(lm, ids, spec.layers[:stages])[:, 0]
        saliency = table.saliency[window, :stages, free].double().numpy()
        for pruner, rows in zip(pruners, found, strict=True):
            scores = torch.stack([pruner(stage, state) for stage, state in enumerate(states)])
            rows.append(
                rank(table.documents[window], scores[:, free].cpu().double().numpy(), saliency, keep[:stages])
            )
    return found


def rank(document: str, scores: Values, saliency: Values, keep: Sequence[int]) -> Ranking:
    """Compare the order of scores with that of saliency, stage by stage.

    Args:
        document: Identifier of the window's document.
        scores: ``[stages, tokens]``.
        saliency: ``[stages, tokens]``.
        keep: How many of the tokens each stage keeps.
    """
    stages = list(zip(scores, saliency, keep, strict=True))
    return Ranking(
        document=document,
        spearman=tuple(spearman(score, value) for score, value, _ in stages),
        ndcg=tuple(ndcg(score, value) for score, value, _ in stages),
        overlap=tuple(overlap(score, value, count) for score, value, count in stages),
    )


def spearman(scores: Values, saliency: Values) -> float:
    """Rank correlation of two ``[tokens]``; zero where one of them is constant and so ranks nothing."""
    if np.ptp(scores) == 0 or np.ptp(saliency) == 0:
        return 0.0
    return float(spearmanr(scores, saliency).statistic)


def ndcg(scores: Values, saliency: Values) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the whole list.

    The gain of a token is its saliency's quantile (rank over number, ties sharing their mean rank):
    saliency itself is so heavy-tailed that the sum would be about its one or two largest values.

    Args:
        scores: ``[tokens]``; they decide the order, ties going to the earlier token.
        saliency: ``[tokens]``.
    """
    gains = rankdata(saliency) / len(saliency)
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    ranked = gains[np.argsort(-scores, kind="stable")]
    ideal = np.sort(gains)[::-1]
    # The sums of equal lists may differ in the last bit, and a share is at most one.
    return min(1.0, float(ranked @ discounts / (ideal @ discounts)))


def overlap(scores: Values, saliency: Values, keep: int) -> float:
    """Share of the `keep` tokens of highest saliency that are among the `keep` of highest score.

    Where a stage keeps none but protected tokens it is about the single best one.
    """
    keep = max(1, keep)
    chosen, wanted = (set(np.argsort(-values, kind="stable")[:keep]) for values in (scores, saliency))
    return len(chosen & wanted) / keep
