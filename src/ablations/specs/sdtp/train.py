"""Spec of `ablations.sdtp.train`, and how well a trained scorer ranks."""

from fractions import Fraction
from math import ceil
from typing import Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion
from ablations.core.errors import UserError
from ablations.specs.lm import Compute, GradientCompute
from ablations.specs.sdtp.counts import Preserve, Stages, stage_counts
from ablations.specs.sdtp.saliency import SaliencySpec


class Losses(Contract):
    """Weights of the training losses (arXiv 2504.04514, eq. 8 has all three at one)."""

    lm: NonNegativeFloat = 1.0
    """Cross-entropy of the frozen LM under the simulated pruning (eq. 7)."""
    mse: NonNegativeFloat = 1.0
    """Mean squared error between keep logit and standardised saliency (eq. 4)."""
    ranking: NonNegativeFloat = 1.0
    """Pairwise logistic ranking loss, a mean over pairs (eq. 5 and 6)."""

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not (self.lm or self.mse or self.ranking):
            raise ValueError("all weights are zero, so nothing would be trained; raise one")
        return self


class PrunerTraining(Contract):
    """Training of a pruner; the language model stays frozen."""

    width: PositiveInt = 128
    """Hidden width of the scorer's MLP."""
    distance: bool = False
    """Whether the scorer is also told a token's distance to the end of the prompt (its logarithm), which a
    causal state does not hold."""
    warmup_epochs: NonNegativeInt = 0
    """Passes over the training windows before the others, with the saliency losses alone: on the unpruned
    model's states, which are computed once and held in memory."""
    epochs: PositiveFloat = 1.0
    """Passes over the training windows through the masked model, which are what a training costs. Text and
    retrieval have equal shares in a part of a pass."""
    batch: PositiveInt = 1
    """Windows per optimiser step."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of AdamW (cosine decay); of the masked steps 0.3 times that."""
    temperature: PositiveFloat = 1.0
    """Temperature of the Gumbel-softmax masks; which tokens a draw keeps does not depend on it."""
    compute: GradientCompute = Compute()
    """How training is computed."""

    def masked_windows(self, windows: int) -> int:
        """Windows that go through the masked model, of so many training windows; repeats are counted."""
        return ceil(Fraction(str(self.epochs)) * windows)


class PrunerSpec(PrunerTraining, Stages):
    """Job of `ablations.sdtp.train`: one scorer per pruning layer, which simulated stages train."""

    losses: Losses
    """Weights of the training losses."""
    preserve: Preserve
    """Tokens that the simulated stages never drop."""
    seed: int
    """Seed of initialisation, order and Gumbel noise."""


def require_choice(spec: PrunerSpec, windows: SaliencySpec, prefix: str = "") -> None:
    """Check that every simulated stage drops a token of a training prompt, so that each scorer can learn.

    Then every stage but the last also keeps one that it could have dropped: the next one has to drop it.

    Args:
        spec: The training.
        windows: What it trains on.
        prefix: Of the keys in the message.

    Raises:
        UserError: a stage drops nothing, because all that is left is protected or the keep ratio keeps it.
    """
    prompt = max(0, windows.tokens - windows.continuation_tokens)
    protected = spec.preserve.of(prompt).tokens
    counts = stage_counts(prompt, spec.keep_ratios, protected)
    for stage, (before, after) in enumerate(zip((prompt, *counts), counts, strict=False), 1):
        if before == after:
            raise UserError(
                f"{prefix}saliency.tokens: stage {stage} of {len(counts)} has nothing to drop in training: it"
                f" keeps all {after} that are left of a prompt of {prompt} tokens (tokens -"
                f" continuation_tokens), {min(prompt, protected)} of them protected; raise tokens, protect"
                f" less (preserve), or let training prune less (schedule, training.keep_ratio or"
                " schedule.trained_keep_ratio)"
            )


class Ranking(Contract):
    """How well scores rank the tokens of one held-out window that stages may drop, one number per stage.

    The stage at the last layer is missing where its saliency is 0 (measures `abs` and `signed`).
    """

    document: str
    """Identifier of the document."""
    spearman: tuple[float, ...]
    """Rank correlation of score and saliency (Spearman)."""
    ndcg: tuple[Proportion, ...]
    """Normalised discounted cumulative gain of the order of scores, with saliency's quantile as the gain."""
    overlap: tuple[Proportion, ...]
    """Share of the tokens that this stage would keep by saliency which it keeps by score."""
