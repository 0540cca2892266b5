"""Pruning simulated by attention masks, through which training has gradients for dropped tokens.

Nothing is removed. As in DynamicViT (Rao et al., 2021, eq. 10 and 11), no other token attends to a dropped
token, which still attends to itself; the visibility of a token is a number with a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.layered import LayeredLM
from ablations.specs.sdtp.counts import Protected

# Attention weight of a dropped key. Attention multiplies by it, and the derivative of log(visible +
# DROPPED_WEIGHT) at zero divides by it: a dropped token has the gradient of DynamicViT's product form.
DROPPED_WEIGHT = 1e-20

KeepFunction = Callable[[int, Tensor, Tensor], Tensor]
"""Takes a stage, states ``[batch, tokens, hidden]`` and visibility ``[batch, tokens]``; returns the stage's
keep mask ``[batch, tokens]``, float32, one or zero, with or without a gradient."""


def sample_keep(
    scores: Tensor,
    visible: Tensor,
    keep: int,
    protected: Protected,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw a stage's keep mask by the straight-through Gumbel-softmax (arXiv 2504.04514, eq. 2).

    Gumbel noise on both outputs equals logistic noise on their difference, the keep logit. The soft mask is
    ``sigmoid((score + noise - threshold) / temperature)``. The threshold (detached) lies between the lowest
    kept and the highest dropped score, so the hard mask keeps as many tokens as top-k does at inference, and
    without noise the same tokens.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        visible: ``[..., tokens]`` float32, one for living tokens.
        keep: Living tokens of each row after this stage, protected ones included.
        protected: Tokens that are always kept.
        temperature: Temperature of the soft mask, above zero.
        generator: Source of the noise; None adds no noise.

    Returns:
        ``[..., tokens]`` float32. Values are zero or, up to rounding, one; the gradient is the soft mask's.
    """
    tokens = scores.shape[-1]
    index = torch.arange(tokens, device=scores.device)
    is_protected = (index < protected.head) | (index >= tokens - protected.tail)
    noisy = scores
    if generator is not None:
        uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
        noisy = scores + uniform.logit(eps=1e-6)
    candidates = (visible.detach() > 0.5) & ~is_protected
    free = max(0, keep - min(tokens, protected.tokens))
    order = noisy.detach().masked_fill(~candidates, -torch.inf).argsort(descending=True, stable=True)
    kept = torch.zeros_like(candidates).scatter(-1, order[..., :free], True) & candidates
    soft = keep_probabilities(noisy, kept, candidates & ~kept, temperature)
    straight_through = kept.float() - soft.detach() + soft
    return torch.where(is_protected, 1.0, straight_through)


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


@dataclass(frozen=True)
class MaskedForward:
    """Result of a forward under simulated pruning.

    Attributes:
        hidden: ``[batch, tokens, hidden]`` after the last layer that ran, before the final norm.
        states: Per stage ``[batch, tokens, hidden]``, detached, at the input of the stage's layer.
        living: ``[stages, batch, tokens]`` bool, tokens that were visible before each stage.
        visible: ``[batch, tokens]`` float32, visibility after the last stage.
    """

    hidden: Tensor
    states: list[Tensor]
    living: Tensor
    visible: Tensor


def masked_forward(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], keep: KeepFunction, end: int | None = None
) -> MaskedForward:
    """Run windows through the layers; at each pruning layer `keep` decides which tokens stay visible.

    Stages cascade: a dropped token stays dropped. The states that `keep` gets are detached, so the gradient
    of the LM loss reaches a scorer through its own mask and not through the inputs of later scorers.

    Args:
        lm: Frozen model.
        ids: ``[batch, tokens]`` int64.
        layers: Ascending pruning layers.
        keep: Keep mask of a stage.
        end: Number of layers to run; a stage at the input of layer `end` still runs. None runs all layers.
    """
    end = lm.num_layers if end is None else end
    stage_of = {layer: stage for stage, layer in enumerate(layers)}
    hidden = lm.embed(ids)
    rotary = lm.rotary(hidden, torch.arange(ids.shape[1], device=ids.device)[None])
    visible = torch.ones(ids.shape, device=ids.device)
    mask = None
    states, living = [], []
    for layer in range(end + 1):
        stage = stage_of.get(layer)
        if stage is not None:
            states.append(hidden.detach())
            living.append(visible.detach() > 0.5)
            visible = visible * keep(stage, states[-1], visible)
            mask = attention_mask(visible, lm.dtype)
        if layer < end:
            hidden = lm.layer(layer, hidden, rotary, mask)
    return MaskedForward(hidden, states, torch.stack(living), visible)
