"""Quality: the text that follows a pruned prompt, read by one teacher-forced forward."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.cache import StaticCache
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.masks import HIDDEN
from ablations.sdtp.pruned.prefill import Prefilled


@torch.inference_mode()
def continuation_states(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, ids: Tensor) -> Tensor:
    """States that predict each token of a continuation, given the pruned prompt and the tokens before it.

    The prefill's state predicts the first token; the others come from one forward, in which every layer
    has its own number of cached rows and so its own mask, and its own positions where they are packed.

    Args:
        lm: Model.
        prefilled: What the prefill of the prompt left.
        cache: Its cache, with room for the continuation; it grows.
        ids: ``[tokens]`` int64 continuation, on the model's device.

    Returns:
        ``[tokens, hidden]``, after the last layer and before the final norm: ``lm.head(states[None])[0]``
        are the logits.
    """
    rows = ids.shape[0] - 1
    first = prefilled.state[None]
    if not rows:
        return first
    hidden = continue_layers(
        lm,
        lm.embed(ids[None, :-1]),
        range(lm.num_layers),
        prefilled.position_offsets,
        cache,
        prefilled.weights,
    )
    return torch.cat([first, hidden[0]])


@torch.inference_mode()
def continue_layers(
    lm: LayeredLM,
    hidden: Tensor,
    layers: range,
    position_offsets: Mapping[int, int],
    cache: StaticCache,
    weights: Sequence[Tensor] | None = None,
) -> Tensor:
    """Run a continuation's tokens through some consecutive layers, after a prompt.

    Args:
        lm: Model.
        hidden: ``[1, rows, hidden]`` at the input of the first of them.
        layers: Consecutive layers.
        position_offsets: Of each of these layers (`Prefilled.position_offsets`).
        cache: Holds what these layers saw of the prompt; it grows.
        weights: Soft mask alone: per layer of the model, what later tokens see the prompt's with.

    Returns:
        ``[1, rows, hidden]`` after the last of them.
    """
    rows = hidden.shape[1]
    firsts = {layer: cache.lengths[layer] + position_offsets[layer] for layer in layers}
    order = torch.arange(rows, device=hidden.device)[None]
    rotaries = {first: lm.rotary(hidden, order + first) for first in set(firsts.values())}
    masks: dict[int, Tensor] = {}
    if rows > 1 or weights is not None:
        masks = {length: _mask(length, rows, hidden.device) for length in {cache.lengths[i] for i in layers}}
    for layer in layers:
        mask = masks.get(cache.lengths[layer])
        if mask is not None and weights is not None:
            mask = _weighted(mask, weights[layer], lm.dtype)
        hidden = lm.layer(layer, hidden, rotaries[firsts[layer]], mask, cache)
    return hidden


@dataclass(frozen=True)
class Quality:
    """A pruned continuation beside the unpruned one.

    Attributes:
        nll: Mean NLL of the continuation, nats per token.
        agreement: Share of its tokens for which both models' most probable token is the same.
        kl: KL divergence of the pruned next-token distribution from the unpruned one, a mean, nats.
    """

    nll: float
    agreement: float
    kl: float

    def require_finite(self, document: str, dtype: torch.dtype) -> None:
        """Check that the logits behind it were finite.

        Args:
            document: Whose continuation it is, for the message.
            dtype: Data type of the model, likewise.

        Raises:
            UserError: NLL or divergence is NaN or infinite.
        """
        finite = math.isfinite(self.nll) and math.isfinite(self.kl)
        require_finite(finite, f"the NLL of document '{document}'", dtype)


@torch.inference_mode()
def quality(lm: LayeredLM, states: Tensor, reference: Tensor, ids: Tensor) -> Quality:
    """Compare predictions of a continuation, in float32.

    Args:
        lm: Model, whose head predicts from both.
        states: ``[tokens, hidden]`` that predict each token after the pruned prompt.
        reference: The same after the whole prompt.
        ids: ``[tokens]`` int64 continuation.
    """
    found, expected = (lm.head(rows[None])[0].float().log_softmax(-1) for rows in (states, reference))
    return Quality(
        nll=F.nll_loss(found, ids).item(),
        agreement=(found.argmax(-1) == expected.argmax(-1)).float().mean().item(),
        # Rounding takes the divergence of equal distributions below zero.
        kl=F.kl_div(found, expected, reduction="batchmean", log_target=True).clamp(min=0.0).item(),
    )


def _mask(cached: int, rows: int, device: torch.device) -> Tensor:
    """``[1, 1, rows, cached + rows]`` bool: new rows see all cached ones and themselves causally."""
    return torch.ones(rows, cached + rows, dtype=torch.bool, device=device).tril(diagonal=cached)[None, None]


def _weighted(mask: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The same mask, additive, in which the prompt's ``[tokens]`` keys have the soft mask's weights."""
    keys = F.pad(torch.log(weights + HIDDEN), (0, mask.shape[-1] - weights.shape[0]))
    return keys.expand(mask.shape).masked_fill(~mask, torch.finfo(dtype).min).to(dtype)
