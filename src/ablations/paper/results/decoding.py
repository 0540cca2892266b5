"""What the paper prints of the decoding experiments."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.study.contracts.base import Contract
from ablations.study.statistics import Estimate


class DecodingResult(Contract):
    """One decoding configuration against autoregressive decoding, beside which it was measured."""

    autoregressive: bool
    """Whether this is autoregressive decoding itself; its speed-up is one by definition."""
    speedup: Estimate
    """Log speed-up over autoregressive decoding per prompt."""
    library_speedup: Estimate | None
    """Autoregressive decoding only: log speed-up over `transformers` `generate`; else null."""
    throughput: PositiveFloat
    """New tokens per second, prefill included: all tokens over all prompts' mean times."""
    tokens_per_forward: PositiveFloat
    """Acceptance length: accepted draft tokens + 1 per target forward."""
    nodes_per_round: NonNegativeFloat
    """Drafted nodes that the target verifies in one round."""
    draft_share: float | None
    """Share of drafting in the time of drafting and verifying; null where neither was timed."""
    prompts: PositiveInt
    """Prompts."""
    new_tokens: PositiveInt
    """Tokens generated over all prompts."""
    matched: NonNegativeInt
    """Prompts whose tokens equal the target's own greedy tokens."""
    tied: NonNegativeInt
    """Prompts that depart from them, at a top-2 margin within the stated tolerance."""
    repeated_4grams: float
    """Mean share of generated 4-grams that occurred before in the same text."""


class PromptKind(Contract):
    """Decoding prompts of one kind."""

    kind: str
    """Name of the kind."""
    count: PositiveInt
    """How many."""
    tokens: PositiveInt | None
    """Cut to so many tokens; null takes each document whole."""


class DecodingProtocol(Contract):
    """How the decoding experiments were measured."""

    prompts: tuple[PromptKind, ...]
    """Prompts by kind, at the full budget."""
    new_tokens: PositiveInt
    """Most tokens generated per prompt."""
    repeats: PositiveInt
    """Timed pairs per prompt."""
    warmup: NonNegativeInt
    """Untimed pairs before the first timed one."""
    weight_layout: str | None
    """How weights lie in memory for both arms; null where no arm ran to the end."""
    tie_margin: NonNegativeFloat | None
    """Top-2 margin within which a departure counts as a tie; null where no arm ran to the end."""
