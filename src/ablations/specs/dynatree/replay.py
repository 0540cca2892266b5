"""Series and samples of `ablations.dynatree.replay_arms`; its items are prompts, and nothing of it is
timed.
"""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from ablations.core.contract import Contract
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.counts import DecodingCounts
from ablations.specs.dynatree.prompts import Continued, PromptKind
from ablations.specs.lm import Compute

REPLAYED = "replayed_"
"""Prefix of the inputs of a record that hold replays: their names are this and the kind of prompts. Timed
prompts are named by their kind alone.
"""

COSTS = "costs"
"""Input of a record, a grid or an arm that holds the costs of its drafter."""


class ReplaySeries(ArmSpec, Continued):
    """One decoding configuration replayed on one kind of prompts."""

    prompts: PromptKind
    """Which prompts; no count of them is part of a series."""
    compute: Compute
    """How target and drafter compute."""


class Replay(DecodingCounts):
    """One prompt as a decoding configuration decodes it."""

    levels_per_round: tuple[tuple[PositiveInt, ...], ...]
    """Rows of each level that is drafted from, by round, the root's first."""
    alone_per_round: tuple[bool, ...]
    """Whether the cheap one of two drafters drafts the round alone."""


class ReplayTotals(Contract):
    """Facts of a replayed series."""

    weight_layout: str
    """How weights lie in memory."""
    peak_memory_bytes: NonNegativeInt
    """Most memory that the process held."""


class PricedReplay(Replay):
    """A replayed prompt with what it costs, in seconds."""

    first: NonNegativeFloat
    """Until the first token, the draft's own prefill included."""
    rounds: NonNegativeFloat
    """Of all rounds after it."""
    reference_first: NonNegativeFloat
    """Until the first token of autoregressive decoding."""
    reference_rounds: NonNegativeFloat
    """Of all its steps after it."""
