"""Series and samples of `ablations.dynatree.decode`, and the spec of the record that is joined from them."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.counts import DecodingCounts
from ablations.specs.dynatree.exactness import DecodeTotals, Departure
from ablations.specs.dynatree.prompts import Continued, Prompted, PromptKind, PromptSet
from ablations.specs.dynatree.replay import PricedReplay
from ablations.specs.lm import Compute


class DecodeRuns(Continued):
    """Runs of a decoding configuration and of its reference on each prompt."""

    repeats: PositiveInt = 2
    """Rounds of arms and reference per prompt, the order rotating; of two, a third where an arm's differ by
    more than 5 %."""
    discarded: NonNegativeInt = 0
    """Whole rounds of every prompt before those, which are not recorded."""
    warmup: NonNegativeInt = 1
    """Untimed runs of arm and reference on every prompt (on the first one, where rounds are discarded) before
    the first timed one; short ones, but for an arm that drafts on its first prompt."""
    compute: Compute = Compute()
    """How decoding is computed."""


Reference = Literal["autoregressive", "generate"]


class DecodeSeries(ArmSpec, DecodeRuns):
    """One decoding configuration against its reference on one kind of prompts; the items are prompts."""

    reference: Reference
    """Interleaved reference: this project's static-cache decoding, or `transformers` `generate`."""
    prompts: PromptKind
    """Which prompts; no count of them is part of a series."""


class DecodeSpec(ArmSpec, DecodeRuns, Prompted):
    """Record of a decoding configuration against its reference on so many prompts of each kind."""

    reference: Reference
    """Interleaved reference: this project's static-cache decoding, or `transformers` `generate`."""
    replayed: tuple[PromptSet, ...] = ()
    """Which prompts are replayed and priced, those of `prompts` the first of them; empty where none are."""


class DecodingTotals(DecodeTotals):
    """Facts of a decoding configuration over all its prompts, those included that were not timed."""

    replays: tuple[PricedReplay, ...] = ()
    """Every prompt replayed and priced, those that were timed among them; empty where none were replayed."""
    unlike: NonNegativeInt = 0
    """Timed prompts whose rounds were not as replayed: rounding made another token or another node of a
    tie."""


class DecodePair(Contract):
    """One interleaved measurement, seconds."""

    arm: PositiveFloat
    """Whole generation by the arm, prefill and draft prefill included."""
    arm_first: PositiveFloat
    """Until the arm's first token."""
    reference: PositiveFloat
    """Whole generation by the reference, prefill included."""
    reference_first: PositiveFloat | None
    """Until the reference's first token; null where the reference does not tell."""
    again: PositiveFloat | None = None
    """Whole generation by the reference once more in the same round, as if it were an arm: its ratio to
    `reference` is the noise. Null where it was not measured."""


class DecodeSample(DecodingCounts):
    """One prompt under one decoding configuration, timed."""

    stopped: bool
    """Whether end of sequence came before the limit."""
    matched: bool
    """Whether the emitted tokens equal the target's own greedy tokens."""
    ties: NonNegativeInt
    """How many departures there are."""
    departures: tuple[Departure, ...] = ()
    """Where the arm departed from the target's greedy tokens in the last round: ties, all of them."""
    draft_seconds: NonNegativeFloat
    """Time spent in the drafter after draft prefill in the last timed round."""
    verify_seconds: NonNegativeFloat
    """Time spent in target forwards after prefill in the last timed round."""
    bookkeeping_seconds: NonNegativeFloat = 0.0
    """Rest of the rounds: growing and choosing the tree, masks, acceptance, compacting the cache."""
    pairs: tuple[DecodePair, ...]
    """Times."""
