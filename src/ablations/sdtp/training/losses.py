"""The three training losses (arXiv 2504.04514, eq. 4 to 8)."""

import math

from torch import Tensor
from torch.nn import functional as F

from ablations.core.errors import UserError


def ranking_loss(scores: Tensor, saliency: Tensor) -> Tensor:
    """Pairwise logistic ranking loss (eq. 5 and 6), averaged over the pairs that saliency orders.

    ``log(1 + exp(score_j - score_i))`` over pairs of tokens with saliency_i > saliency_j. The paper sums over
    pairs; with a mean the loss does not grow with the length of the window.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        saliency: ``[..., tokens]`` float32; only its order matters.
    """
    above = (saliency.unsqueeze(-1) > saliency.unsqueeze(-2)).float()
    losses = F.softplus(scores.unsqueeze(-2) - scores.unsqueeze(-1)) * above
    return (losses.sum((-2, -1)) / above.sum((-2, -1)).clamp(min=1)).mean()


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
