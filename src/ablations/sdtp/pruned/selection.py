"""How many tokens a pruning stage keeps, and which."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor

from ablations.study.contracts.sdtp import Preserve
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


def stage_counts(
    tokens: int, keep_ratios: Iterable[float], preserve: Preserve, least: int = 0
) -> tuple[int, ...]:
    """Tokens that are left after each stage: ``max(protected, ceil(ratio * living))``.

    They depend on lengths alone, so that a prefill never waits for the device to learn a shape.

    Args:
        tokens: Tokens of the prompt.
        keep_ratios: Share of the living tokens that each stage keeps, protected ones included.
        preserve: Tokens that no stage drops.
        least: A stage leaves at least this many tokens, even where fewer are protected.
    """
    protected = min(tokens, max(least, preserve.head + preserve.tail))
    counts = []
    living = tokens
    for ratio in keep_ratios:
        # The decimal that was written, not its binary neighbour: 0.55 of 100 is 55, not 56.
        living = max(protected, ceil(Fraction(str(ratio)) * living))
        counts.append(living)
    return tuple(counts)


def select(scores: Tensor, keep: int, preserve: Preserve) -> Tensor:
    """Rows to keep: the protected ones and, of the others, those of the highest scores.

    Protected rows survive every stage and rows stay in order, so they are always the first `head` and
    the last `tail` rows. Ties go to the earlier row. Nothing here waits for the device.

    Args:
        scores: ``[rows]``, float.
        keep: How many rows to keep, at least head + tail.
        preserve: Rows that are kept whatever their score.

    Returns:
        ``[keep]``, int64, ascending.
    """
    rows = scores.shape[0]
    everything = torch.arange(rows, device=scores.device)
    end = rows - preserve.tail
    if preserve.head >= end:
        return everything
    free = keep - preserve.head - preserve.tail
    order = scores[preserve.head : end].argsort(descending=True, stable=True)
    chosen = order[:free].sort().values + preserve.head
    return torch.cat([everything[: preserve.head], chosen, everything[end:]])


def unprotected(scores: Tensor, preserve: Preserve) -> Tensor:
    """Scores ``[rows]`` without those of the protected rows; empty where all are protected."""
    return scores[preserve.head : max(preserve.head, scores.shape[0] - preserve.tail)]


def top_p_count(scores: Tensor, mass: float, preserve: Preserve) -> int:
    """Rows that the top-p rule keeps: protected ones, and the fewest others with this probability mass.

    Probabilities are the softmax of the unprotected scores (the nucleus of Holtzman et al., 2020, over
    tokens of the prompt). At least one row is kept. The host waits for the device here.

    Args:
        scores: ``[rows]``, float.
        mass: Probability to reach, from zero (none) to one (all).
        preserve: Rows that are kept whatever their score.
    """
    free = unprotected(scores, preserve).double()
    before = free.softmax(0).sort(descending=True).values.cumsum(0).roll(1)
    before[:1] = 0.0
    # A token is needed as long as those above it have less than the mass.
    return _kept(scores, free, int((before < mass).sum()))


def threshold_count(scores: Tensor, bound: float, preserve: Preserve) -> int:
    """Rows that the threshold rule keeps: protected ones, and all others that score at least `bound`.

    At least one row is kept. The host waits for the device here.

    Args:
        scores: ``[rows]``, float.
        bound: Lowest score that is kept.
        preserve: Rows that are kept whatever their score.
    """
    free = unprotected(scores, preserve)
    return _kept(scores, free, int((free >= bound).sum()))


def _kept(scores: Tensor, free: Tensor, chosen: int) -> int:
    return max(1, scores.shape[0] - free.shape[0] + chosen)
