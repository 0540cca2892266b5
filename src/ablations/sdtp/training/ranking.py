"""Ranking quality of scores: Spearman correlation, NDCG, and the overlap of kept tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from ablations.lm.layered import LayeredLM
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.training.states import UnprunedStates
from ablations.specs.sdtp.counts import stage_counts
from ablations.specs.sdtp.train import PrunerSpec, Ranking

Values = NDArray[np.float64]


@torch.no_grad()
def rank_heldout(
    lm: LayeredLM, table: SaliencyTable, spec: PrunerSpec, pruners: Sequence[Pruner], states: UnprunedStates
) -> list[list[Ranking]]:
    """Ranking of each pruner on each held-out window, from the states of the unpruned model.

    Scores and saliency are computed from the unpruned model's states, so all pruners have equal inputs.
    Protected tokens are excluded, since no stage ranks them, and so are stages without a saliency.

    Args:
        lm: Frozen model.
        table: Saliency table; its held-out windows are used.
        spec: Spec of the pruners' training: layers, keep ratios, protected tokens.
        pruners: Pruners for `spec.layers`.
        states: States of the table's windows at `spec.layers`.

    Returns:
        One list per pruner, with one entry per held-out window; empty lists if no stage has a saliency.
    """
    protected = spec.preserve.of(table.prompt_tokens)
    free = slice(protected.head, table.prompt_tokens - protected.tail)
    counts = stage_counts(table.prompt_tokens, spec.keep_ratios, protected.tokens)
    keep = [count - protected.tokens for count in counts]
    rankings: list[list[Ranking]] = [[] for _ in pruners]
    stages = table.spec.target.stages(spec.layers, lm.num_layers)
    if not stages:
        return rankings
    indices = torch.arange(table.prompt_tokens, device=lm.device)
    for window in table.heldout.nonzero()[:, 0].tolist():
        prompt = states.prompt(window)[:stages].to(lm.device)
        saliency = table.saliency[window, :stages, free].double().numpy()
        for pruner, rows in zip(pruners, rankings, strict=True):
            scorer = pruner.of_prompt(table.prompt_tokens)
            scores = torch.stack([scorer(stage, state, indices) for stage, state in enumerate(prompt)])
            rows.append(
                rank(table.documents[window], scores[:, free].cpu().double().numpy(), saliency, keep[:stages])
            )
    return rankings


def rank(document: str, scores: Values, saliency: Values, keep: Sequence[int]) -> Ranking:
    """Compare the order of scores with that of saliency, stage by stage.

    Args:
        document: Identifier of the window's document.
        scores: ``[stages, tokens]``.
        saliency: ``[stages, tokens]``.
        keep: Number of tokens that each stage keeps.
    """
    stages = list(zip(scores, saliency, keep, strict=True))
    return Ranking(
        document=document,
        spearman=tuple(spearman(score, value) for score, value, _ in stages),
        ndcg=tuple(ndcg(score, value) for score, value, _ in stages),
        overlap=tuple(overlap(score, value, count) for score, value, count in stages),
    )


def spearman(scores: Values, saliency: Values) -> float:
    """Rank correlation of two ``[tokens]`` arrays; zero if one of them is constant."""
    if np.ptp(scores) == 0 or np.ptp(saliency) == 0:
        return 0.0
    return float(spearmanr(scores, saliency).statistic)


def ndcg(scores: Values, saliency: Values) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the whole list.

    The gain of a token is the quantile of its saliency (rank over number of tokens, mean rank for ties).
    Saliency itself has so heavy a tail that one or two values would dominate the sum.

    Args:
        scores: ``[tokens]``, which define the order; ties go to the earlier token.
        saliency: ``[tokens]``.
    """
    gains = rankdata(saliency) / len(saliency)
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    ranked = gains[np.argsort(-scores, kind="stable")]
    ideal = np.sort(gains)[::-1]
    # Clipped at one, since the sums of equal lists may differ in the last bit.
    return min(1.0, float(ranked @ discounts / (ideal @ discounts)))


def overlap(scores: Values, saliency: Values, keep: int) -> float:
    """Share of the `keep` tokens of highest saliency that are among the `keep` tokens of highest score.

    If a stage keeps only protected tokens (`keep` 0), the share is that of the single best token.
    """
    keep = max(1, keep)
    scored, salient = (set(np.argsort(-values, kind="stable")[:keep]) for values in (scores, saliency))
    return len(scored & salient) / keep
