"""Pruning simulated by attention masks, through which training has gradients for dropped tokens.

As in DynamicViT (Rao et al., 2021, eq. 10 and 11), no other token attends to a dropped token, which still
attends to itself; the visibility of a token is a number with a gradient.
"""

import torch
from torch import Tensor

# Attention weight of a dropped key. Attention multiplies by it, and the derivative of log(visible +
# DROPPED_WEIGHT) at zero divides by it: a dropped token has the gradient of DynamicViT's product form.
DROPPED_WEIGHT = 1e-20


def keep_probabilities(scores: Tensor, kept: Tensor, dropped: Tensor, temperature: float) -> Tensor:
    """Soft keep mask ``sigmoid((score - threshold) / temperature)`` of a stage, ``[..., tokens]`` float32.

    The threshold (detached) lies between the scores of `kept` and of `dropped`.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        kept: ``[..., tokens]`` bool, tokens that the stage keeps for their score.
        dropped: ``[..., tokens]`` bool, tokens that the stage drops.
        temperature: Above zero.
    """
    return torch.sigmoid((scores - _threshold(scores.detach(), kept, dropped)) / temperature)


def _threshold(scores: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
    """Midpoint of the lowest kept and the highest dropped score of each row, ``[..., 1]``.

    If a row keeps or drops no token, the threshold is the other of the two scores.
    """
    lowest = scores.masked_fill(~kept, torch.inf).amin(-1, keepdim=True)
    highest = scores.masked_fill(~dropped, -torch.inf).amax(-1, keepdim=True)
    lowest = torch.where(lowest.isinf(), highest, lowest)
    highest = torch.where(highest.isinf(), lowest, highest)
    return torch.nan_to_num((lowest + highest) / 2)


def attention_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive causal mask ``[batch, 1, tokens, tokens]``; tokens attend to visible tokens and to themselves.

    Args:
        visible: ``[batch, tokens]`` float32, one for living tokens, zero for dropped ones.
        dtype: Data type of the attention.
    """
    tokens = visible.shape[-1]
    itself = torch.eye(tokens, dtype=torch.bool, device=visible.device)
    future = torch.ones_like(itself).triu(diagonal=1)
    weights = torch.log(visible + DROPPED_WEIGHT)[:, None, None].masked_fill(itself, 0.0)
    return weights.masked_fill(future, torch.finfo(dtype).min).to(dtype)
