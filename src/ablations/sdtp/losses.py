"""The three training losses (arXiv 2504.04514, eq. 4 to 8)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.study.contracts.sdtp import Measure
from ablations.study.errors import UserError

# Where the logarithm of saliency ends; measured values lie between 1e-6 and 10.
SMALLEST = 1e-9


def regression_targets(saliency: Tensor, living: Tensor, measure: Measure) -> Tensor:
    """Saliency on a scale that a squared error can fit, standardised over the living tokens of each stage.

    Saliency has a heavy tail (the first token's lies tens of standard deviations above the others), and a
    squared error on it fits little else. The logarithm has no such tail and keeps the order of tokens. For
    signed saliency, whose tails are on both sides of zero, its odd counterpart does: the inverse
    hyperbolic sine, linear below the median magnitude and logarithmic above it. (A logarithm of the
    magnitude with the sign put back would tear small values of either sign apart.)

    Args:
        saliency: ``[..., tokens]`` float32, not negative unless signed.
        living: ``[..., tokens]`` bool.
        measure: What saliency means.
    """
    if measure != "signed":
        return standardise(saliency.clamp(min=SMALLEST).log(), living)
    median = saliency.abs().masked_fill(~living, torch.nan).nanmedian(-1, keepdim=True).values
    return standardise(torch.asinh(saliency / median.nan_to_num().clamp(min=SMALLEST)), living)


def standardise(values: Tensor, living: Tensor) -> Tensor:
    """Zero mean and unit variance over the living tokens of each stage.

    Args:
        values: ``[..., tokens]`` float32.
        living: ``[..., tokens]`` bool.

    Returns:
        ``[..., tokens]`` float32, zero where not living.
    """
    weight = living.float()
    number = weight.sum(-1, keepdim=True).clamp(min=1)
    centred = (values - (values * weight).sum(-1, keepdim=True) / number) * weight
    variance = centred.square().sum(-1, keepdim=True) / number
    return centred / variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def regression_loss(scores: Tensor, targets: Tensor, living: Tensor) -> Tensor:
    """Mean squared error between keep logits and targets over living tokens, a mean over the rest (eq. 4).

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        targets: ``[..., tokens]`` float32 standardised saliency.
        living: ``[..., tokens]`` bool.
    """
    weight = living.float()
    errors = ((scores - targets).square() * weight).sum(-1) / weight.sum(-1)
    return errors.mean()


def ranking_loss(scores: Tensor, targets: Tensor, living: Tensor) -> Tensor:
    """Pairwise logistic ranking loss (eq. 5 and 6), a mean over pairs and over the rest.

    ``log(1 + exp(-(score_i - score_j) * sign(target_i - target_j)))`` over pairs i < j of living tokens.
    The paper sums; a mean keeps the weight independent of the length of the window.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        targets: ``[..., tokens]`` float32 saliency; only its order matters.
        living: ``[..., tokens]`` bool.
    """
    order = torch.sign(targets.unsqueeze(-1) - targets.unsqueeze(-2))
    margins = (scores.unsqueeze(-1) - scores.unsqueeze(-2)) * order
    pairs = (living.unsqueeze(-1) & living.unsqueeze(-2)).triu(diagonal=1)
    losses = F.softplus(-margins) * pairs
    return (losses.sum((-2, -1)) / pairs.sum((-2, -1)).clamp(min=1)).mean()


def lm_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Next-token cross-entropy in nats, computed in float32 (eq. 7).

    Args:
        logits: ``[rows, vocabulary]``, any float dtype.
        ids: ``[rows]`` int64, the token that follows each row.
    """
    return F.cross_entropy(logits.float(), ids)


def require_finite(losses: dict[str, float], step: int) -> None:
    """Stop a training that diverged.

    Raises:
        UserError: a loss is NaN or infinite.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise UserError(
                f"training diverged at step {step}: loss '{name}' is {value};"
                " lower sdtp.training.learning_rate or use compute.dtype float32"
            )
