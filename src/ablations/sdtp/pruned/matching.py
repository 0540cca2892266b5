"""Keep ratios that give an arm another configuration's token counts or its FLOPs."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from ablations.sdtp.pruned.pruning import Pruning
from ablations.study.contracts.sdtp import Match
from ablations.study.errors import UserError

# Ratios are searched on a grid of this many steps from zero to one.
GRID = 100_000


def matched(pruning: Pruning, match: Match | None, flops: Callable[[Pruning], int]) -> Pruning:
    """`pruning` with the keep ratios that `match` asks for; without one, as it is.

    Args:
        pruning: Top-k in a cascade.
        match: Whose count or FLOPs to have.
        flops: Prefill FLOPs of a configuration.

    Raises:
        UserError: the other configuration has another number of stages, or FLOPs that no ratio gives.
    """
    if match is None:
        return pruning
    other = replace(
        pruning,
        layers=match.layers,
        keep_ratios=match.keep_ratios,
        preserve=match.preserve,
        least=match.preserve,
    )
    if match.quantity == "count":
        if len(match.layers) != len(pruning.layers):
            raise UserError(
                f"schedule.match: 'count' needs as many stages as the matched configuration"
                f" ({len(match.layers)}, not {len(pruning.layers)}); use 'flops'"
            )
        return replace(pruning, keep_ratios=match.keep_ratios, least=match.preserve)

    def with_ratio(step: int) -> Pruning:
        return replace(pruning, keep_ratios=(step / GRID,) * len(pruning.layers))

    target = flops(other)
    if not flops(with_ratio(1)) <= target <= flops(with_ratio(GRID)):
        raise UserError(
            f"schedule.match: no keep ratio at layers {list(pruning.layers)} gives the matched"
            " configuration's FLOPs; prune from an earlier layer on, or match 'count'"
        )
    # Counts are whole tokens, so FLOPs rise in steps: the nearer neighbour of the target is taken.
    above = bisect_left(range(GRID + 1), target, lo=1, key=lambda step: flops(with_ratio(step)))
    nearest = min((max(1, above - 1), above), key=lambda step: abs(flops(with_ratio(step)) - target))
    return with_ratio(nearest)
