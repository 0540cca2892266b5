"""Where the scores of a prompt's tokens come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.cost import saliency_flops, scorer_flops
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.study.contracts.sdtp import PromptSaliency
from ablations.study.errors import UserError


@dataclass(frozen=True)
class Importance:
    """One way to score.

    Attributes:
        scorer: Takes a prompt ``[tokens]`` and its number among the evaluated ones; returns its scorer.
            What it does belongs to the prefill, and is timed with it.
        flops: Takes the prompt's tokens and the candidates of each stage; returns the floating-point
            operations of all of its scoring.
    """

    scorer: Callable[[Tensor, int], Scorer]
    flops: Callable[[int, Sequence[int]], int] = lambda tokens, scored: 0


def learned(lm: LayeredLM, pruner: Pruner) -> Importance:
    """Keep logits of trained scorers (arXiv 2504.04514, eq. 1)."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: pruner(stage, states)

    return Importance(scorer, lambda tokens, scored: scorer_flops(lm, scored, pruner.width))


def random(seed: int) -> Importance:
    """Uniform scores; a draw depends on the seed, the number of the prompt and the stage alone."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        generator = torch.Generator(ids.device)

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            # A rank of a pipeline does not run the stages before its own.
            generator.manual_seed(((seed * 1_000_003 + number) * 1_009 + stage) % 2**63)
            return torch.rand(states.shape[0], generator=generator, device=states.device)

        return score

    return Importance(scorer)


def recent() -> Importance:
    """The later in the prompt, the more important (the window of StreamingLLM, Xiao et al., 2024)."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: indices.float()

    return Importance(scorer)


def hidden_norm() -> Importance:
    """L2 norm of a token's state, computed in float32."""

    def scorer(ids: Tensor, number: int) -> Scorer:
        return lambda stage, states, indices: torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)

    return Importance(scorer)


def prior(table: SaliencyTable, device: torch.device) -> Importance:
    """A fixed curve per stage: how salient the tokens at a relative position of a prompt are on average.

    The mean over the training windows of what a scorer regresses to (standardised logarithm of saliency),
    over the part of the window that is prompt, interpolated to the length of the prompt at hand.
    """
    prompt = table.ids.shape[1] - table.spec.continuation_tokens
    saliency = table.saliency[~table.heldout, :, :prompt]
    everything = torch.ones_like(saliency, dtype=torch.bool)
    curves = regression_targets(saliency, everything, table.spec.target.measure).mean(0).to(device)

    def scorer(ids: Tensor, number: int) -> Scorer:
        scores = F.interpolate(curves[None], size=ids.shape[0], mode="linear", align_corners=True)[0]
        return lambda stage, states, indices: scores[stage, indices]

    return Importance(scorer)


def saliency(lm: LayeredLM, layers: tuple[int, ...], spec: PromptSaliency) -> Importance:
    """Gradient saliency of the prompt itself: one forward and one backward over all of it (eq. 3).

    Args:
        lm: Model whose linear layers have gradients, that is, not prepacked ones.
        layers: Pruning layers.
        spec: What the gradient is of.
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
