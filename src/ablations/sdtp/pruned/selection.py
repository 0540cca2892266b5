"""Which tokens a pruning stage keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ablations.study.contracts.sdtp import Protected
from ablations.study.errors import UserError


def require_layers(layers: Sequence[int], num_layers: int) -> None:
    """Check that stages lie at distinct, ascending layers that the model has.

    Raises:
        UserError: they do not.
    """
    if list(layers) != sorted(set(layers)):
        raise UserError(f"schedule.layers: {list(layers)} must be ascending, each layer once")
    if layers[-1] >= num_layers:
        raise UserError(
            f"schedule.layers: layer {layers[-1]} does not exist, the model has layers 0 to {num_layers - 1}"
        )


def select(scores: Tensor, keep: int, protected: Protected) -> Tensor:
    """Rows to keep: the protected ones and, of the others, those of the highest scores.

    Protected rows survive every stage and rows stay in order, so they are always the first `head` and
    the last `tail` rows. Ties go to the earlier row. Nothing here waits for the device.

    Args:
        scores: ``[rows]``, float.
        keep: How many rows to keep, at least head + tail.
        protected: Rows that are kept whatever their score.

    Returns:
        ``[keep]``, int64, ascending.
    """
    rows = scores.shape[0]
    everything = torch.arange(rows, device=scores.device)
    end = rows - protected.tail
    if protected.head >= end:
        return everything
    free = keep - protected.head - protected.tail
    order = scores[protected.head : end].argsort(descending=True, stable=True)
    chosen = order[:free].sort().values + protected.head
    return torch.cat([everything[: protected.head], chosen, everything[end:]])


def unprotected(scores: Tensor, protected: Protected) -> Tensor:
    """Scores ``[rows]`` without those of the protected rows; empty where all are protected."""
    return scores[protected.head : max(protected.head, scores.shape[0] - protected.tail)]


def top_p_count(scores: Tensor, mass: float, protected: Protected) -> int:
    """Rows that the top-p rule keeps: protected ones, and the fewest others with this probability mass.

    Probabilities are the softmax of the unprotected scores (the nucleus of Holtzman et al., 2020, over
    tokens of the prompt). At least one row is kept. The host waits for the device here.

    Args:
        scores: ``[rows]``, float.
        mass: Probability to reach, from zero (none) to one (all).
        protected: Rows that are kept whatever their score.
    """
    free = unprotected(scores, protected).double()
    before = free.softmax(0).sort(descending=True).values.cumsum(0).roll(1)
    before[:1] = 0.0
    # A token is needed as long as those above it have less than the mass.
    return _kept(scores, free, int((before < mass).sum()))


def threshold_count(scores: Tensor, bound: float, protected: Protected) -> int:
    """Rows that the threshold rule keeps: protected ones, and all others that score at least `bound`.

    At least one row is kept. The host waits for the device here.

    Args:
        scores: ``[rows]``, float.
        bound: Lowest score that is kept.
        protected: Rows that are kept whatever their score.
    """
    free = unprotected(scores, protected)
    return _kept(scores, free, int((free >= bound).sum()))


def _kept(scores: Tensor, free: Tensor, chosen: int) -> int:
    return max(1, scores.shape[0] - free.shape[0] + chosen)
