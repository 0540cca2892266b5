"""Gradient saliency (arXiv 2504.04514, eq. 3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.layered import LayeredLM
from ablations.specs.sdtp.saliency import SaliencyMeasure


def window_saliency(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], loss_tokens: int, measure: SaliencyMeasure
) -> tuple[Tensor, float]:
    """Saliency of one window's tokens, by one forward and one backward (arXiv 2504.04514, eq. 3).

    The gradient of the NLL is taken with respect to hidden states only; the model is frozen. With the NLL of
    the continuation, a prompt token's effect on the prompt's own tokens does not count: it has no use after
    the prompt has been read.

    Args:
        lm: Frozen model.
        ids: ``[tokens]`` int64, on the model's device.
        layers: Ascending layers; saliency is that of their input states.
        loss_tokens: Number of tokens at the end whose NLL is used, fewer than all.
        measure: With gradient g and state x, `abs` is |g . x|, `norm` is |g| |x|, and `signed` is -g . x, the
            first-order rise of the NLL if the state were zero.

    Returns:
        ``[stages, tokens]`` float32 on the model's device, and the mean NLL of the loss tokens in nats.
    """
    states = {}
    with torch.no_grad():
        hidden = lm.embed(ids[None])
        rotary = lm.rotary(hidden, torch.arange(ids.shape[0], device=ids.device)[None])
        for layer in range(layers[0]):
            hidden = lm.layer(layer, hidden, rotary)
    with torch.enable_grad():
        # Weights need no gradient, so the graph begins at the states of the first pruning layer.
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
