"""Spec of `ablations.sdtp.saliency`: what saliency means, and on which windows it is computed."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from ablations.core.contract import Contract, conflict
from ablations.core.errors import UserError
from ablations.specs.lm import Compute, GradientCompute
from ablations.specs.sdtp.counts import Layers
from ablations.specs.sdtp.retrieval import RetrievalKind, TrainingPrompts

SaliencyMeasure = Literal["abs", "norm", "signed"]
WindowKind = Literal["text"] | RetrievalKind
"""What a window is cut from: a text as it is, or one in which a retrieval prompt hides a fact."""


class SaliencyTarget(Contract):
    """What saliency means."""

    measure: SaliencyMeasure = "norm"
    """Per token, of gradient g and state x: `abs` is |g . x|, `norm` is |g| |x|, `signed` is -g . x, by how
    much the NLL would rise, to first order, if the state were zero."""
    loss: Literal["continuation", "window"] = "continuation"
    """Whose NLL the gradient is of: the window's last tokens, which are not pruned, or all of its tokens."""

    def stages(self, layers: Sequence[int], num_layers: int) -> int:
        """How many stages, from the first on, have a saliency; all, or all but the one at the last layer.

        The last layer normalises its input before attention, so the size of a token's state has no effect on
        the keys and values that others see, and g . x is exactly 0. It is not for a token that predicts one
        of those whose NLL is meant: its state also goes on to the head, past the layer.

        Args:
            layers: Ascending layers of the stages.
            num_layers: Layers of the model.
        """
        nothing = self.measure != "norm" and self.loss == "continuation" and num_layers - 1 in layers
        return len(layers) - nothing


class SaliencyWindows(Contract):
    """Windows whose saliency is computed."""

    documents: PositiveInt
    """Training documents, one window of text each."""
    retrieval: TrainingPrompts | None = None
    """Further training windows, whose prompt hides a fact that the continuation needs; null for none."""
    heldout_documents: PositiveInt
    """Held-out documents, one window each, on which a pruner's ranking is measured."""
    tokens: PositiveInt
    """Tokens of one window."""
    continuation_tokens: PositiveInt = 64
    """Last tokens of a window of text: training's LM loss is their NLL, and no stage prunes them. A retrieval
    window has a prompt of the same length, and its answer instead of them."""
    compute: GradientCompute = Compute()
    """How saliency is computed."""

    @model_validator(mode="after")
    def _begin_with_a_prompt(self) -> Self:
        if self.tokens <= self.continuation_tokens:
            raise conflict(
                "tokens",
                f"{self.tokens} leave no prompt before continuation_tokens ({self.continuation_tokens});"
                " raise it",
            )
        return self


class SaliencySpec(SaliencyWindows):
    """Job of `ablations.sdtp.saliency`: windows and their saliency per pruning layer."""

    layers: Layers
    """Layers whose input states are scored, counted from 0."""
    target: SaliencyTarget
    """What saliency means."""


def require_saliency(
    target: SaliencyTarget, layers: Sequence[int], num_layers: int, key: str, why: str
) -> None:
    """Check that each stage has a saliency.

    Args:
        target: What saliency means.
        layers: Ascending layers of the stages.
        num_layers: Layers of the model.
        key: Key of the measure, for the message.
        why: What would come of it if one had none, for the message.

    Raises:
        UserError: the one at the last layer has none.
    """
    if target.stages(layers, num_layers) < len(layers):
        raise UserError(
            f"{key}: '{target.measure}' of the loss '{target.loss}' is 0 at the input of the last layer"
            f" ({num_layers - 1}), so {why}; use 'norm' or the loss 'window', or do not prune at that layer"
        )
