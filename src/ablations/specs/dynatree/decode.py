"""Series and samples of `ablations.dynatree.decode`, and the spec of the record that is joined from them."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.specs.dynatree.arm import ArmSpec
from ablations.specs.dynatree.exactness import Departure
from ablations.specs.dynatree.prompts import Continued, Prompted, PromptKind
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
    the first timed one; short ones of what takes a token at a time."""
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


class DecodeSample(Contract):
    """One prompt under one decoding configuration."""

    document: str
    """Identifier of the prompt."""
    kind: str
    """Kind of prompt."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt."""
    new_tokens: PositiveInt
    """Tokens generated, the end-of-sequence token included."""
    stopped: bool
    """Whether end of sequence came before the limit."""
    matched: bool
    """Whether the emitted tokens equal the target's own greedy tokens."""
    ties: NonNegativeInt
    """How many departures there are."""
    departures: tuple[Departure, ...] = ()
    """Where the arm departed from the target's greedy tokens in the last round: ties, all of them."""
    repeated_4grams: Annotated[float, Field(ge=0.0, le=1.0)]
    """Share of generated 4-grams that occurred before in the generated text."""
    target_forwards: NonNegativeInt
    """Target forwards after prefill, one per round; 0 where the first token ends the sequence."""
    draft_forwards: NonNegativeInt
    """Draft forwards (tree levels) after draft prefill."""
    drafted: NonNegativeInt
    """Drafted nodes that the target verified."""
    accepted: NonNegativeInt
    """Draft tokens accepted and emitted; bonus tokens are not counted."""
    accepted_per_round: tuple[NonNegativeInt, ...]
    """Accepted draft tokens of each round, in order."""
    drafted_per_round: tuple[NonNegativeInt, ...] = ()
    """Drafted nodes that the target verified in each round; empty without a drafter."""
    tested_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds in which all nodes above were accepted and children were drafted."""
    accepted_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds of `tested_per_depth` in which a child was accepted and emitted."""
    draft_seconds: NonNegativeFloat
    """Time spent in the drafter after draft prefill in the last timed round."""
    verify_seconds: NonNegativeFloat
    """Time spent in target forwards after prefill in the last timed round."""
    bookkeeping_seconds: NonNegativeFloat = 0.0
    """Rest of the rounds: growing and choosing the tree, masks, acceptance, compacting the cache."""
    pairs: tuple[DecodePair, ...]
    """Times."""
