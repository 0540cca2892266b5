"""Windows under simulated pruning, with a gradient for what a stage dropped.

No other token attends to a dropped token (`pruned.masks`), whose visibility has a gradient up to the next
stage: keep masks multiply, and a later one is zero for what was dropped before it. There a dropped token
leaves the computation, as it does in a pruned prefill.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.masks import attention_mask, keep_probabilities
from ablations.specs.sdtp.counts import Protected

KeepFunction = Callable[[int, Tensor, Tensor], Tensor]
"""Takes a stage, states ``[batch, rows, hidden]`` of the living tokens of the prompts and their indices
``[batch, rows]`` (int64); returns the stage's keep mask ``[batch, rows]``, float32, one or zero, with or
without a gradient."""


def sample_keep(
    scores: Tensor, keep: int, protected: Protected, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """Draw a stage's keep mask by the straight-through Gumbel-softmax (arXiv 2504.04514, eq. 2).

    Gumbel noise on both outputs equals logistic noise on their difference, the keep logit. The soft mask is
    ``sigmoid((score + noise - threshold) / temperature)``. The threshold (detached) lies between the lowest
    kept and the highest dropped score, so the hard mask keeps as many tokens as top-k does at inference, and
    without noise the same tokens.

    Args:
        scores: ``[..., rows]`` float32 keep logits of living tokens.
        keep: Tokens of each row that are kept, protected ones included.
        protected: Tokens that are always kept.
        temperature: Temperature of the soft mask, above zero.
        generator: Source of the noise; None adds no noise.

    Returns:
        ``[..., rows]`` float32. Values are zero or, up to rounding, one; the gradient is the soft mask's.
    """
    rows = scores.shape[-1]
    index = torch.arange(rows, device=scores.device)
    is_protected = (index < protected.head) | (index >= rows - protected.tail)
    noisy = scores
    if generator is not None:
        uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
        noisy = scores + uniform.logit(eps=1e-6)
    free = max(0, keep - min(rows, protected.tokens))
    order = noisy.detach().masked_fill(is_protected, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    none = torch.zeros_like(scores, dtype=torch.bool)
    kept = none.scatter(-1, order[..., :free], True) & ~is_protected
    soft = keep_probabilities(noisy, kept, ~(kept | is_protected), temperature)
    straight_through = kept.float() - soft.detach() + soft
    return torch.where(is_protected, 1.0, straight_through)


def masked_forward(
    lm: LayeredLM,
    hidden: Tensor,
    layers: Sequence[int],
    counts: Sequence[int],
    prompt_tokens: int,
    keep: KeepFunction,
    end: int | None = None,
) -> Tensor:
    """Run windows from the first pruning layer on; each stage decides which prompt tokens stay visible.

    Stages cascade. The states that `keep` gets are detached, so the gradient of the LM loss reaches a scorer
    through its own masks and not through the inputs of later scorers.

    Args:
        lm: Frozen model.
        hidden: ``[batch, tokens, hidden]`` at the input of the first pruning layer.
        layers: Ascending pruning layers.
        counts: Tokens of a prompt that each stage keeps.
        prompt_tokens: First tokens of a window, which stages may drop.
        keep: Keep mask of a stage.
        end: Number of layers to run; a stage at the input of layer `end` still runs. None runs all layers.

    Returns:
        ``[batch, 1 + tokens - prompt_tokens, hidden]`` after the last layer that ran, before the final norm:
        the last prompt token that is left, which predicts what follows the prompt, and all that follows it.
    """
    batch, tokens = hidden.shape[:2]
    following = tokens - prompt_tokens
    indices = torch.arange(tokens, device=hidden.device).expand(batch, -1)
    cosines, sines = lm.rotary(hidden, indices[:1])
    visible = torch.ones(batch, prompt_tokens, device=hidden.device)
    ends = (*layers[1:], lm.num_layers if end is None else end)
    for stage, (layer, next_layer) in enumerate(zip(layers, ends, strict=True)):
        if stage:
            rows = _visible_rows(visible, counts[stage - 1])
            visible = visible.gather(1, rows)
            after = torch.arange(indices.shape[1] - following, indices.shape[1], device=rows.device)
            rows = torch.cat([rows, after.expand(batch, -1)], 1)
            indices = indices.gather(1, rows)
            hidden = hidden.gather(1, rows[..., None].expand(-1, -1, hidden.shape[-1]))
        prompt = slice(visible.shape[1])
        visible = visible * keep(stage, hidden[:, prompt].detach(), indices[:, prompt])
        mask = attention_mask(torch.cat([visible, visible.new_ones(batch, following)], 1), lm.dtype)
        rotary = cosines[0][indices], sines[0][indices]
        for index in range(layer, next_layer):
            hidden = lm.layer(index, hidden, rotary, mask)
    last = _visible_rows(visible, counts[-1])[:, -1:]
    last_state = hidden.gather(1, last[..., None].expand(-1, -1, hidden.shape[-1]))
    return torch.cat([last_state, hidden[:, visible.shape[1] :]], 1)


def _visible_rows(visible: Tensor, count: int) -> Tensor:
    """Ascending rows of the `count` visible tokens of ``[batch, rows]``; the host does not wait."""
    return (visible.detach() < 0.5).int().argsort(dim=-1, stable=True)[:, :count]
