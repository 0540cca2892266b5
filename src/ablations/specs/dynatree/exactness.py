"""What every job that decodes reports of its tokens and its weights."""

from pydantic import NonNegativeFloat, NonNegativeInt

from ablations.core.contract import Contract


class Departure(Contract):
    """An emitted token that is not the target's greedy one, or the first that is another than expected."""

    position: NonNegativeInt
    """Place among the new tokens, counted from 0."""
    gap: NonNegativeFloat
    """How far its logit lies below the greatest, when the target reads what was emitted in one forward; at
    the first departure that of the expected token, where it lies further."""


class DecodeTotals(Contract):
    """Facts of a whole decoding job."""

    tie_margin: NonNegativeFloat
    """Difference of logits up to which a departure counts as a tie: fixed in float32; in lower precision
    measured in this job when something departed, and 0 where nothing did."""
    weight_layout: str
    """How the weights lie in memory for both arms (`stock`, or the prepacking used)."""
    peak_memory_bytes: NonNegativeInt
    """Peak memory of the process (CPU) or of the device's allocator (CUDA)."""
