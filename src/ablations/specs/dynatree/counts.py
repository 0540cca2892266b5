"""What decoding one prompt comes to in numbers that no clock plays a part in."""

from pydantic import NonNegativeInt, PositiveInt

from ablations.core.contract import Contract, Proportion


class DecodingCounts(Contract):
    """One prompt under one decoding configuration, decoded or replayed."""

    document: str
    """Identifier of the prompt."""
    kind: str
    """Kind of prompt."""
    prompt_tokens: PositiveInt
    """Tokens of the prompt."""
    new_tokens: PositiveInt
    """Tokens generated, the end-of-sequence token included."""
    repeated_4grams: Proportion
    """Share of generated 4-grams that occurred before in the generated text."""
    target_forwards: NonNegativeInt
    """Target forwards after prefill, one per round; 0 where the first token ends the sequence."""
    draft_forwards: NonNegativeInt
    """Draft forwards (tree levels) after draft prefill."""
    drafted: NonNegativeInt
    """Drafted nodes that the target verifies."""
    accepted: NonNegativeInt
    """Draft tokens accepted and emitted; bonus tokens are not counted."""
    accepted_per_round: tuple[NonNegativeInt, ...]
    """Accepted draft tokens of each round, in order."""
    drafted_per_round: tuple[NonNegativeInt, ...] = ()
    """Drafted nodes that the target verifies in each round; empty without a drafter."""
    tested_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds in which all nodes above were accepted and children were drafted."""
    accepted_per_depth: tuple[NonNegativeInt, ...] = ()
    """For depths 1, 2, ...: rounds of `tested_per_depth` in which a child was accepted and emitted."""
