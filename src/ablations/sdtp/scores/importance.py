"""Importance: sources of the scores of a prompt's tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.cost import saliency_flops, scorer_flops
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.specs.sdtp.evaluate import PromptSaliency


@dataclass(frozen=True)
class Importance:
    """One source of scores.

    Attributes:
        scorer: Takes a prompt ``[tokens]`` and its number among the evaluated prompts; returns the prompt's
            scorer. This call is part of the prefill, and is timed with it.
        flops: Takes the number of the prompt's tokens and the candidates of each stage; returns the
            floating-point operations of scoring the prompt.
    """

    scorer: Callable[[Tensor, int], Scorer]
    flops: Callable[[int, Sequence[int]], int] = lambda tokens, scored: 0


def learned(lm: LayeredLM, pruner: Pruner) -> Importance:
    """Keep logits of trained scorers (arXiv 2504.04514, eq. 1)."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: pruner(stage, states)

    return Importance(scorer, lambda tokens, scored: scorer_flops(lm, scored, pruner.width))


def random(seed: int) -> Importance:
    """Uniform random scores; they depend on the seed, the number of the prompt and the stage only."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        generator = torch.Generator(ids.device)

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            # Seeded anew for each stage, since a rank of a pipeline does not run the stages before its own.
            generator.manual_seed(((seed * 1_000_003 + number) * 1_009 + stage) % 2**63)
            return torch.rand(states.shape[0], generator=generator, device=states.device)

        return score

    return Importance(scorer)


def recent() -> Importance:
    """Importance grows with the position in the prompt (the window of StreamingLLM, Xiao et al., 2024)."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: indices.float()

    return Importance(scorer)


def hidden_norm() -> Importance:
    """L2 norm of a token's state, in float32."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)

    return Importance(scorer)


def prior(table: SaliencyTable, device: torch.device) -> Importance:
    """A fixed curve per stage: the mean saliency of tokens by their relative position in the prompt.

    A curve is the mean of the regression targets (standardised logarithm of saliency) over the prompts of the
    training windows, interpolated to the length of the scored prompt.
    """
    prompt_tokens = table.ids.shape[1] - table.spec.continuation_tokens
    saliency = table.saliency[~table.heldout, :, :prompt_tokens]
    all_tokens = torch.ones_like(saliency, dtype=torch.bool)
    curves = regression_targets(saliency, all_tokens, table.spec.target.measure).mean(0).to(device)

    def scorer(ids: Tensor, number: int) -> Scorer:
        scores = F.interpolate(curves[None], size=ids.shape[0], mode="linear", align_corners=True)[0]
        return lambda stage, states, indices: scores[stage, indices]

    return Importance(scorer)


def saliency(lm: LayeredLM, layers: tuple[int, ...], spec: PromptSaliency) -> Importance:
    """Gradient saliency of the scored prompt itself, by one forward and one backward over it (eq. 3).

    Args:
        lm: Model with stock linear layers; packed ones have no gradient.
        layers: Pruning layers.
        spec: Measure and loss of the saliency.
    """

    def loss_tokens(tokens: int) -> int:
        return tokens - 1 if spec.loss_tokens is None else spec.loss_tokens

    def scorer(ids: Tensor, number: int) -> Scorer:
        scores, _ = window_saliency(lm, ids, layers, loss_tokens(ids.shape[0]), spec.measure)
        if not scores.isfinite().all():
            raise UserError("saliency of a prompt is not finite; use compute.dtype float32")
        return lambda stage, states, indices: scores[stage, indices]

    def flops(tokens: int, scored: Sequence[int]) -> int:
        return saliency_flops(lm, tokens, layers[0], loss_tokens(tokens))

    return Importance(scorer, flops)
