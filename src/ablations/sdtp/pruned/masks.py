"""Pruning simulated by attention masks, so that training can reach what selection would hide.

Nothing is removed: as in DynamicViT (Rao et al., 2021, eq. 10 and 11) a dropped token is invisible to
all others and still sees itself, and whether it is visible is a number with a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.lm.layered import LayeredLM
from ablations.study.contracts.sdtp import Protected

# Weight of a dropped key, of the order of 1e-20. The derivative of log(visible + HIDDEN) at zero undoes
# this factor, so a dropped token gets the gradient it has in DynamicViT's product form.
HIDDEN = 1e-20

Keep = Callable[[int, Tensor, Tensor], Tensor]
"""Takes a stage, the states ``[batch, tokens, hidden]`` and what is visible ``[batch, tokens]``; returns the
stage's keep mask ``[batch, tokens]``, float32, one or zero, with or without a gradient."""


def sample_keep(
    scores: Tensor,
    visible: Tensor,
    keep: int,
    protected: Protected,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw a stage's keep mask by the straight-through Gumbel-softmax (arXiv 2504.04514, eq. 2).

    Gumbel noise on both outputs is logistic noise on their difference, the keep logit. The soft mask is
    ``sigmoid((score + noise - threshold) / temperature)``, where the threshold lies
    (detached) between the last token that is kept and the first that is not: the hard mask keeps as many
    tokens as top-k does at inference, and without noise the same ones.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        visible: ``[..., tokens]`` float32, one for living tokens.
        keep: Living tokens of each row after this stage, protected ones included.
        protected: Tokens that are always kept.
        temperature: Above zero.
        generator: Source of the noise; None draws none.

    Returns:
        ``[..., tokens]`` float32; forward exactly zero or (to rounding) one, backward the soft mask's
        gradient.
    """
    tokens = scores.shape[-1]
    index = torch.arange(tokens, device=scores.device)
    kept = (index < protected.head) | (index >= tokens - protected.tail)
    noisy = scores
    if generator is not None:
        uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
        noisy = scores + uniform.logit(eps=1e-6)
    candidates = (visible.detach() > 0.5) & ~kept
    free = max(0, keep - min(tokens, protected.tokens))
    order = noisy.detach().masked_fill(~candidates, -torch.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(candidates).scatter(-1, order[..., :free], True) & candidates
    soft = keep_probabilities(noisy, chosen, candidates & ~chosen, temperature)
    drawn = chosen.float() - soft.detach() + soft
    return torch.where(kept, 1.0, drawn)


def keep_probabilities(scores: Tensor, chosen: Tensor, dropped: Tensor, temperature: float) -> Tensor:
    """Soft keep mask ``sigmoid((score - threshold) / temperature)`` of a stage, ``[..., tokens]`` float32.

    Args:
        scores: ``[..., tokens]`` float32 keep logits.
        chosen: ``[..., tokens]`` bool, tokens that the stage keeps for their score.
        dropped: ``[..., tokens]`` bool, tokens that it drops; the (detached) threshold lies between both.
        temperature: Above zero.
    """
    return torch.sigmoid((scores - _threshold(scores.detach(), chosen, dropped)) / temperature)


def _threshold(scores: Tensor, chosen: Tensor, dropped: Tensor) -> Tensor:
    """Midway between the lowest chosen and the highest dropped score of each row, ``[..., 1]``; the one there
    is if one is missing.
    """
    lowest = scores.masked_fill(~chosen, torch.inf).amin(-1, keepdim=True)
    highest = scores.masked_fill(~dropped, -torch.inf).amax(-1, keepdim=True)
    lowest = torch.where(lowest.isinf(), highest, lowest)
    highest = torch.where(highest.isinf(), lowest, highest)
    return torch.nan_to_num((lowest + highest) / 2)


def attention_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive causal mask ``[batch, 1, tokens, tokens]`` in which only visible tokens are seen by others.

    Args:
        visible: ``[batch, tokens]`` float32, one for living tokens, zero for dropped ones.
        dtype: Data type of the attention.
    """
    tokens = visible.shape[-1]
    itself = torch.eye(tokens, dtype=torch.bool, device=visible.device)
    future = torch.ones_like(itself).triu(diagonal=1)
    weights = torch.log(visible + HIDDEN)[:, None, None].masked_fill(itself, 0.0)
    return weights.masked_fill(future, torch.finfo(dtype).min).to(dtype)


@dataclass(frozen=True)
class Masked:
    """A forward under simulated pruning.

    Attributes:
        hidden: ``[batch, tokens, hidden]`` after the last layer that ran, before the final norm.
        states: ``[batch, tokens, hidden]`` at the input of each stage's layer, detached.
        living: ``[stages, batch, tokens]`` bool, what was visible when each stage began.
        visible: ``[batch, tokens]`` float32, what every stage kept.
    """

    hidden: Tensor
    states: list[Tensor]
    living: Tensor
    visible: Tensor


def masked_forward(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], keep: Keep, end: int | None = None
) -> Masked:
    """Run windows through the layers; at each pruning layer `keep` decides what stays visible.

    Stages cascade: what one dropped no later one brings back. The states that `keep` sees are detached,
    so the LM loss reaches a scorer through its own mask and not through the input of later scorers.

    Args:
        lm: Frozen model.
        ids: ``[batch, tokens]`` int64.
        layers: Ascending pruning layers.
        keep: Decides.
        end: How many layers run; a stage at the input of layer `end` still takes place. None runs all.
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
    return Masked(hidden, states, torch.stack(living), visible)
