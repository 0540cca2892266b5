"""Rules by which a pruning stage selects the tokens it keeps."""

import torch
from torch import Tensor

from ablations.specs.sdtp.counts import Protected


def select(scores: Tensor, keep: int, protected: Protected) -> Tensor:
    """Rows to keep: the protected rows, and those of the others with the highest scores.

    Protected rows survive every stage and rows stay in order, so protected rows are always the first `head`
    and the last `tail`. Ties go to the earlier row. The host does not wait for the device.

    Args:
        scores: ``[rows]``, float.
        keep: Number of rows to keep, at least head + tail.
        protected: Rows that are kept whatever their score.

    Returns:
        ``[keep]``, int64, ascending.
    """
    rows = scores.shape[0]
    indices = torch.arange(rows, device=scores.device)
    end = rows - protected.tail
    if protected.head >= end:
        return indices
    free = keep - protected.head - protected.tail
    order = scores[protected.head : end].argsort(descending=True, stable=True)
    selected = order[:free].sort().values + protected.head
    return torch.cat([indices[: protected.head], selected, indices[end:]])


def unprotected(scores: Tensor, protected: Protected) -> Tensor:
    """Scores ``[rows]`` without those of the protected rows; empty if all rows are protected."""
    return scores[protected.head : max(protected.head, scores.shape[0] - protected.tail)]


def top_p_count(scores: Tensor, mass: float, protected: Protected) -> int:
    """Number of rows that top-p keeps: protected rows, and the fewest others with this probability mass.

    Probabilities are the softmax of the unprotected scores (the nucleus of Holtzman et al., 2020, over
    tokens of the prompt). At least one row is kept. The host waits for the device.

    Args:
        scores: ``[rows]``, float.
        mass: Probability mass to reach, from zero (no row) to one (all rows).
        protected: Rows that are kept whatever their score.
    """
    free = unprotected(scores, protected).double()
    before = free.softmax(0).sort(descending=True).values.cumsum(0).roll(1)
    before[:1] = 0.0
    # A token is kept if the more probable tokens have less than the mass.
    return _count(scores, free, int((before < mass).sum()))


def threshold_count(scores: Tensor, bound: float, protected: Protected) -> int:
    """Number of rows that the threshold rule keeps: protected rows, and others that score at least `bound`.

    At least one row is kept. The host waits for the device.

    Args:
        scores: ``[rows]``, float.
        bound: Lowest score to keep.
        protected: Rows that are kept whatever their score.
    """
    free = unprotected(scores, protected)
    return _count(scores, free, int((free >= bound).sum()))


def _count(scores: Tensor, free: Tensor, selected: int) -> int:
    return max(1, scores.shape[0] - free.shape[0] + selected)
