"""Saliency by gradients (arXiv 2504.04514, eq. 3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.layered import LayeredLM
from ablations.study.contracts.sdtp import Measure


def window_saliency(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], loss_tokens: int, measure: Measure
) -> tuple[Tensor, float]:
    """Saliency of one window's tokens, by one forward and one backward (arXiv 2504.04514, eq. 3).

    The gradient is that of the NLL with respect to the hidden states alone; the model is frozen. Where the
    loss is about the continuation, what a prompt token does for its own neighbours is left out: it is of
    no use once the prompt has been read.

    Args:
        lm: Frozen model.
        ids: ``[tokens]`` int64, on the model's device.
        layers: Ascending layers whose input states are meant.
        loss_tokens: How many tokens at the end the loss is about, fewer than all.
        measure: Of gradient g and state x, `abs` is |g . x|, `norm` is |g| |x|, and `signed` is -g . x: by
            how much the NLL would rise, to first order, if the state were zero.

    Returns:
        ``[stages, tokens]`` float32 on the model's device, and the mean NLL of those tokens in nats.
    """
    states = {}
    with torch.no_grad():
        hidden = lm.embed(ids[None])
        rotary = lm.rotary(hidden, torch.arange(ids.shape[0], device=ids.device)[None])
        for layer in range(layers[0]):
            hidden = lm.layer(layer, hidden, rotary)
    with torch.enable_grad():
        # The gradient of frozen weights is not wanted, so the graph begins at the first state that is.
        hidden.requires_grad_()
        for layer in range(layers[0], lm.num_layers):
            if layer in layers:
                states[layer] = hidden
            hidden = lm.layer(layer, hidden, rotary)
        logits = lm.head(hidden[:, -loss_tokens - 1 : -1])[0]
        loss = F.cross_entropy(logits.float(), ids[-loss_tokens:])
        gradients = torch.autograd.grad(loss, [states[layer] for layer in layers])
    state = torch.cat([states[layer].detach() for layer in layers]).float()
    gradient = torch.cat(gradients).float()
    if measure == "norm":
        return gradient.norm(dim=-1) * state.norm(dim=-1), loss.item()
    signed = -(gradient * state).sum(-1)
    return (signed.abs() if measure == "abs" else signed), loss.item()
