"""Result of `ablations.dynatree.calibrate_costs`, by which trees are grown and replays priced."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from ablations.core.contract import Contract, Proportion


class Costs(Contract):
    """What `ablations.dynatree.calibrate_costs` found: seconds, and probabilities as they turn out."""

    rows: tuple[PositiveInt, ...]
    """Rows of a target forward (root and nodes), rising from 1."""
    verify: tuple[PositiveFloat, ...]
    """Seconds of a target forward over so many rows, never falling."""
    draft_level: NonNegativeFloat
    """Seconds of drafting a level, however wide."""
    draft_row: NonNegativeFloat
    """Seconds of drafting from one node more."""
    stated: tuple[NonNegativeFloat, ...]
    """Path probabilities that the draft states, rising."""
    accepted: tuple[Proportion, ...]
    """Shares of the nodes of these path probabilities that the target accepts, never falling."""
    child: Proportion
    """Share of accepted nodes with a drafted level below of which a child is accepted too."""
    rate: PositiveFloat
    """Tokens per second of trees chosen by these costs on the validation prompts: the price of time."""
