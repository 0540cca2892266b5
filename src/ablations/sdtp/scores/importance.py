"""Importance: sources of the scores of a prompt's tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_module
from ablations.sdtp.pruned.cost import attention_flops, saliency_flops, scorer_flops
from ablations.sdtp.pruned.living import Scorer
from ablations.sdtp.scores.attention import WindowAttention
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.pruner import Pruner
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.specs.sdtp.evaluate import PromptSaliency
from ablations.specs.sdtp.pruning import Positions
from ablations.specs.sdtp.saliency import SaliencyMeasure, SaliencyTarget

DISTANCE_WEIGHT = 2.0


@dataclass(frozen=True, eq=False)
class Prompt:
    """What scores of a prompt's tokens may be computed from.

    Attributes:
        ids: ``[tokens]`` int64, on the model's device.
        number: Tells the evaluated prompts apart.
        following: ``[tokens]`` int64, what truly follows the prompt, on the model's device; None where nobody
            knows it. Of all importances only the oracle reads it.
    """

    ids: Tensor
    number: int
    following: Tensor | None = None


@dataclass(frozen=True)
class Importance:
    """One source of scores.

    Attributes:
        scorer: Takes a prompt; returns its scorer. This call is part of the prefill, and is timed with it.
        flops: Takes the number of the prompt's tokens and the candidates of each stage; returns the
            floating-point operations of scoring the prompt.
    """

    scorer: Callable[[Prompt], Scorer]
    flops: Callable[[int, Sequence[int]], int] = lambda tokens, scored: 0


def learned(pruner: Pruner) -> Importance:
    """Keep logits of trained scorers (arXiv 2504.04514, eq. 1)."""

    def scorer(prompt: Prompt) -> Scorer:
        return pruner.of_prompt(prompt.ids.shape[0])

    return Importance(scorer, lambda tokens, scored: scorer_flops(pruner, scored))


def learned_distance(pruner: Pruner) -> Importance:
    """Keep logits minus twice the logarithm of the distance to the prompt's end; that of the last token is 1.

    A causal state does not hold the distance. Nothing is trained again.
    """
    trained = learned(pruner)

    def scorer(prompt: Prompt) -> Scorer:
        tokens, logits = prompt.ids.shape[0], trained.scorer(prompt)

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            return logits(stage, states, indices) - DISTANCE_WEIGHT * (tokens - indices).log()

        return score

    return Importance(scorer, trained.flops)


def attention(lm: LayeredLM, layers: Sequence[int], window: int, positions: Positions) -> Importance:
    """Attention of the last candidates at the stage's own layer, a mean over heads and queries.

    A window of one is the token importance of LazyLLM (arXiv 2407.14057, section 3.2), one of several that of
    SnapKV's observation window (arXiv 2404.14469), without its pooling. Nothing is trained for it.

    Args:
        lm: Model, before its weights are packed.
        layers: Pruning layers.
        window: Last candidates whose attention is taken.
        positions: RoPE indices of candidates: with `packed` they are numbered anew, else each has its own.
    """
    stages = [WindowAttention(lm, layer, window) for layer in layers]
    for stage in stages:
        pack_module(stage)

    def scorer(prompt: Prompt) -> Scorer:
        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            packed = torch.arange(states.shape[0], device=states.device)
            places = packed if positions == "packed" else indices
            return stages[stage](states, lm.rotary(states[None], places[None]))

        return score

    return Importance(scorer, lambda tokens, scored: attention_flops(lm, scored, window))


def random(seed: int) -> Importance:
    """Uniform random scores; they depend on the seed, the number of the prompt and the stage only."""

    def scorer(prompt: Prompt) -> Scorer:
        generator = torch.Generator(prompt.ids.device)

        def score(stage: int, states: Tensor, indices: Tensor) -> Tensor:
            # Seeded anew for each stage, since a rank of a pipeline does not run the stages before its own.
            generator.manual_seed(((seed * 1_000_003 + prompt.number) * 1_009 + stage) % 2**63)
            return torch.rand(states.shape[0], generator=generator, device=states.device)

        return score

    return Importance(scorer)


def recent() -> Importance:
    """Importance grows with the position in the prompt (the window of StreamingLLM, Xiao et al., 2024)."""

    def scorer(prompt: Prompt) -> Scorer:
        return lambda stage, states, indices: indices.float()

    return Importance(scorer)


def hidden_norm() -> Importance:
    """L2 norm of a token's state, in float32."""

    def scorer(prompt: Prompt) -> Scorer:
        return lambda stage, states, indices: torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)

    return Importance(scorer)


def prior(table: SaliencyTable, device: torch.device) -> Importance:
    """A fixed curve per stage: the mean saliency of tokens by their relative position in the prompt.

    A curve is the mean of the regression targets (standardised logarithm of saliency) over the prompts of the
    training windows, interpolated to the length of the scored prompt.
    """
    saliency = table.saliency[~table.heldout, :, : table.prompt_tokens]
    all_tokens = torch.ones_like(saliency, dtype=torch.bool)
    curves = regression_targets(saliency, all_tokens, table.spec.target.measure).mean(0).to(device)

    def scorer(prompt: Prompt) -> Scorer:
        tokens = prompt.ids.shape[0]
        scores = F.interpolate(curves[None], size=tokens, mode="linear", align_corners=True)[0]
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

    def scorer(prompt: Prompt) -> Scorer:
        scores = _saliency(lm, prompt.ids, layers, loss_tokens(prompt.ids.shape[0]), spec.measure)
        return lambda stage, states, indices: scores[stage, indices]

    def flops(tokens: int, scored: Sequence[int]) -> int:
        return saliency_flops(lm, tokens, layers[0], loss_tokens(tokens))

    return Importance(scorer, flops)


def oracle(lm: LayeredLM, layers: tuple[int, ...], measure: SaliencyMeasure) -> Importance:
    """Gradient saliency of the prompt by the NLL of what truly follows it, which no method knows.

    It tells whether saliency is a bad signal or one that cannot be predicted. A stage at the last layer takes
    the scores of the stage before where it has none of its own (`SaliencyTarget.stages`). Its cost is not
    counted.

    Args:
        lm: Model with stock linear layers; packed ones have no gradient.
        layers: Pruning layers; the first has a saliency.
        measure: Measure of the saliency.
    """
    last = SaliencyTarget(measure=measure, loss="continuation").stages(layers, lm.num_layers) - 1

    def scorer(prompt: Prompt) -> Scorer:
        assert prompt.following is not None
        ids = torch.cat([prompt.ids, prompt.following])
        scores = _saliency(lm, ids, layers, prompt.following.shape[0], measure)
        return lambda stage, states, indices: scores[min(stage, last), indices]

    return Importance(scorer)


def _saliency(
    lm: LayeredLM, ids: Tensor, layers: tuple[int, ...], loss_tokens: int, measure: SaliencyMeasure
) -> Tensor:
    """Saliency as `window_saliency` gives it, checked to be finite."""
    scores, _ = window_saliency(lm, ids, layers, loss_tokens, measure)
    if not scores.isfinite().all():
        raise UserError("saliency of a prompt is not finite; use compute.dtype float32")
    return scores
