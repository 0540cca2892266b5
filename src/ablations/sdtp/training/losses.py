"""The three training losses (arXiv 2504.04514, eq. 4 to 8)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.core.errors import UserError


def regression_loss(scores: Tensor, targets: Tensor, living: Tensor) -> Tensor:
    """Mean squared error of keep logits over living tokens, averaged over stages and windows (eq. 4).

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        targets: ``[..., tokens]`` float32 standardised saliency.
        living: ``[..., tokens]`` bool.
    """
    weight = living.float()
    errors = ((scores - targets).square() * weight).sum(-1) / weight.sum(-1)
    return errors.mean()


def ranking_loss(scores: Tensor, targets: Tensor, living: Tensor) -> Tensor:
    """Pairwise logistic ranking loss (eq. 5 and 6), averaged over pairs, stages and windows.

    ``log(1 + exp(-(score_i - score_j) * sign(target_i - target_j)))`` over pairs i < j of living tokens.
    The paper sums over pairs; with a mean the loss does not grow with the length of the window.

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


def require_finite_losses(losses: dict[str, float], step: int) -> None:
    """Check that the training has not diverged.

    Raises:
        UserError: a loss is NaN or infinite.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            raise UserError(
                f"training diverged at step {step}: loss '{name}' is {value};"
                " lower sdtp.training.learning_rate or use compute.dtype float32"
            )
