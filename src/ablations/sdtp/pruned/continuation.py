"""Quality of a pruned prompt: the text that follows it, in one teacher-forced forward."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.cache import StaticCache
from ablations.lm.finite import require_finite
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.masks import DROPPED_WEIGHT
from ablations.sdtp.pruned.prefill import Prefilled


@torch.inference_mode()
def continuation_states(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, ids: Tensor) -> Tensor:
    """States that predict each token of a continuation from the pruned prompt and the tokens before it.

    The prefill's state predicts the first token. One forward gives the other states; in it every layer has
    its own number of cached rows, hence its own mask and, with packed positions, its own positions.

    Args:
        lm: Model.
        prefilled: Result of the prompt's prefill.
        cache: Cache of that prefill, with room for the continuation; it grows.
        ids: ``[tokens]`` int64 continuation, on the model's device.

    Returns:
        ``[tokens, hidden]``, after the last layer and before the final norm; ``lm.head(states[None])[0]``
        gives the logits.
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
    """Run a continuation's tokens through consecutive layers, after a prompt.

    Args:
        lm: Model.
        hidden: ``[1, rows, hidden]`` at the input of the first layer.
        layers: Consecutive layers.
        position_offsets: Position offset of each of these layers (`Prefilled.position_offsets`).
        cache: Holds the prompt's keys and values of these layers; it grows.
        weights: With a soft mask, per layer of the model, the attention weights of the prompt's tokens
            (`Prefilled.weights`).

    Returns:
        ``[1, rows, hidden]`` after the last layer.
    """
    rows = hidden.shape[1]
    first_positions = {layer: cache.lengths[layer] + position_offsets[layer] for layer in layers}
    order = torch.arange(rows, device=hidden.device)[None]
    rotaries = {first: lm.rotary(hidden, order + first) for first in set(first_positions.values())}
    masks: dict[int, Tensor] = {}
    if rows > 1 or weights is not None:
        masks = {length: _mask(length, rows, hidden.device) for length in {cache.lengths[i] for i in layers}}
    for layer in layers:
        mask = masks.get(cache.lengths[layer])
        if mask is not None and weights is not None:
            mask = _weighted(mask, weights[layer], lm.dtype)
        hidden = lm.layer(layer, hidden, rotaries[first_positions[layer]], mask, cache)
    return hidden


@dataclass(frozen=True)
class Quality:
    """Quality of a continuation after the pruned prompt, against the unpruned prompt.

    Attributes:
        nll: Mean NLL of the continuation, nats per token.
        agreement: Share of tokens for which the most probable token is the same with and without pruning.
        kl: Mean KL divergence of the pruned next-token distribution from the unpruned one, in nats.
    """

    nll: float
    agreement: float
    kl: float

    def require_finite(self, document: str, dtype: torch.dtype) -> None:
        """Check that the logits were finite.

        Args:
            document: Document of the continuation, for the message.
            dtype: Data type of the model, for the message.

        Raises:
            UserError: NLL or divergence is NaN or infinite.
        """
        finite = math.isfinite(self.nll) and math.isfinite(self.kl)
        require_finite(finite, f"the NLL of document '{document}'", dtype)


@torch.inference_mode()
def log_probabilities(lm: LayeredLM, states: Tensor) -> Tensor:
    """Log-probabilities ``[tokens, vocabulary]``, float32, of what states ``[tokens, hidden]`` predict."""
    return lm.head(states[None])[0].float().log_softmax(-1)


@torch.inference_mode()
def quality(pruned: Tensor, unpruned: Tensor, ids: Tensor) -> Quality:
    """Compare the predictions of a continuation with and without pruning, in float32.

    Args:
        pruned: ``[tokens, vocabulary]``, log-probabilities of each token after the pruned prompt.
        unpruned: ``[tokens, vocabulary]``, the same after the unpruned prompt.
        ids: ``[tokens]`` int64 continuation.
    """
    return Quality(
        nll=F.nll_loss(pruned, ids).item(),
        agreement=(pruned.argmax(-1) == unpruned.argmax(-1)).float().mean().item(),
        # Rounding may make the divergence of equal distributions negative.
        kl=F.kl_div(pruned, unpruned, reduction="batchmean", log_target=True).clamp(min=0.0).item(),
    )


def _mask(cached: int, rows: int, device: torch.device) -> Tensor:
    """``[1, 1, rows, cached + rows]`` bool: new rows attend to all cached rows, and causally to new ones."""
    return torch.ones(rows, cached + rows, dtype=torch.bool, device=device).tril(diagonal=cached)[None, None]


def _weighted(mask: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask in additive form, with the soft mask's ``[tokens]`` weights on the prompt's keys."""
    keys = F.pad(torch.log(weights + DROPPED_WEIGHT), (0, mask.shape[-1] - weights.shape[0]))
    return keys.expand(mask.shape).masked_fill(~mask, torch.finfo(dtype).min).to(dtype)
