"""Where stages prune and how many tokens each keeps: layers, keep ratios, protected tokens."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from ablations.core.contract import Contract, conflict
from ablations.core.errors import UserError

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]


Amount = NonNegativeInt | Annotated[float, Field(gt=0.0, lt=1.0)]


def _check_ascending(layers: tuple[int, ...]) -> tuple[int, ...]:
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"{list(layers)} must be ascending, each layer once")
    return layers


Layers = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_check_ascending)]


class Stages(Contract):
    """The stages of a pruning configuration."""

    layers: Layers
    """Layers at whose input a stage prunes, counted from 0."""
    keep_ratios: tuple[Ratio, ...]
    """Share of the living tokens that each stage keeps."""

    @model_validator(mode="after")
    def _one_ratio_each(self) -> Self:
        if len(self.keep_ratios) != len(self.layers):
            raise conflict(
                "keep_ratios",
                f"{len(self.keep_ratios)} ratios for {len(self.layers)} layers; give one each",
            )
        return self


def require_layers(layers: Sequence[int], num_layers: int) -> None:
    """Check that the model has all layers of stages.

    Args:
        layers: Layers of the stages, ascending.
        num_layers: Layers of the model.

    Raises:
        UserError: it lacks one.
    """
    if layers[-1] >= num_layers:
        raise UserError(
            f"schedule.layers: layer {layers[-1]} does not exist, the model has layers 0 to {num_layers - 1}"
        )


class Protected(NamedTuple):
    """Tokens of one prompt that no stage drops."""

    head: int
    """First tokens of the prompt."""
    tail: int
    """Last tokens of the prompt."""

    @property
    def tokens(self) -> int:
        """Both together; more than the prompt has where head and tail overlap."""
        return self.head + self.tail


class Preserve(Contract):
    """Prompt tokens that no stage may drop: a number of tokens, or, below one, a share of the prompt."""

    head: Amount = 4
    """First tokens of the prompt that are always kept: how many, or which share of the prompt."""
    tail: Amount = 16
    """Last tokens of the prompt that are always kept: how many, or which share of the prompt."""

    def of(self, tokens: int) -> Protected:
        """What is protected of a prompt of `tokens` tokens; a share is rounded up."""
        return Protected(
            *(
                ceil(_decimal(amount) * tokens) if 0 < amount < 1 else int(amount)
                for amount in (self.head, self.tail)
            )
        )


def check_prunable(preserve: Preserve, tokens: int) -> None:
    """Check, for a validator of a contract with a key `preserve`, that a prompt has tokens to lose.

    Raises:
        ValidationError: all `tokens` tokens of it are protected.
    """
    if tokens <= preserve.of(tokens).tokens:
        raise conflict(
            "preserve",
            f"keeps all {tokens} tokens of a prompt; protect less, or make prompts longer"
            " (evaluation.prompt_tokens)",
        )


def stage_counts(tokens: int, keep_ratios: Iterable[float], protected: int) -> tuple[int, ...]:
    """Tokens that are left of a prompt after each stage: ``max(protected, ceil(ratio * living))``.

    They depend on lengths alone, so that a prefill never waits for the device to learn a shape.

    Args:
        tokens: Tokens of the prompt.
        keep_ratios: Share of the living tokens that each stage keeps, protected ones included.
        protected: A stage leaves at least this many tokens, or all where there are fewer.
    """
    counts = []
    living = tokens
    for ratio in keep_ratios:
        living = max(min(tokens, protected), ceil(_decimal(ratio) * living))
        counts.append(living)
    return tuple(counts)


def _decimal(number: float) -> Fraction:
    """The decimal that was written, not its binary neighbour: 0.55 of 100 is 55, not 56."""
    return Fraction(str(number))
