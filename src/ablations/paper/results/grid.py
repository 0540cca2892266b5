"""What the paper prints of replayed grids."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from ablations.core.contract import Contract
from ablations.evidence.statistics import Estimate
from ablations.paper.results.files import RecordFile
from ablations.specs.dynatree.arm import Shape


class GridResult(Contract):
    """One draft configuration replayed to one length; its speed is a price, not a measurement."""

    file: RecordFile
    """Grid that it is from."""
    shape: Shape
    """Shape of a draft."""
    tau: float | None
    """Threshold on the path probability; null prunes nothing."""
    tokens: PositiveInt
    """Most tokens generated per prompt."""
    kind: str | None
    """Kind of prompts; null for all."""
    speedup: Estimate
    """Log of the price of autoregressive decoding over that of the rounds, per prompt."""
    tokens_per_forward: PositiveFloat
    """Acceptance length: accepted draft tokens + 1 per target forward, over all prompts."""
    nodes_per_round: NonNegativeFloat
    """Drafted nodes that the target would verify in one round."""
    new_tokens: PositiveFloat
    """Tokens replayed, a mean over prompts: some end before the length."""
    repeated_4grams: float
    """Mean share of 4-grams that occurred before in the same text."""
