"""Keep ratios with which an arm has another configuration's token counts or FLOPs."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from ablations.core.errors import UserError
from ablations.sdtp.pruned.pruning import Pruning
from ablations.specs.sdtp.evaluate import Match

# Ratios are searched on a grid of this many steps from zero to one.
GRID = 100_000


def matched(pruning: Pruning, match: Match | None, flops: Callable[[Pruning], int]) -> Pruning:
    """`pruning` with the keep ratios that `match` asks for; unchanged if `match` is None.

    Args:
        pruning: A configuration with top-k in a cascade.
        match: Configuration whose token counts or FLOPs to match; with `count` it has as many stages.
        flops: Prefill FLOPs of a configuration.

    Raises:
        UserError: the matched configuration has FLOPs that no ratio gives.
    """
    if match is None:
        return pruning
    matched_pruning = replace(
        pruning,
        layers=match.layers,
        keep_ratios=match.keep_ratios,
        preserve=match.preserve,
        floor=match.preserve,
    )
    if match.quantity == "count":
        return replace(pruning, keep_ratios=match.keep_ratios, floor=match.preserve)

    def with_ratio(step: int) -> Pruning:
        return replace(pruning, keep_ratios=(step / GRID,) * len(pruning.layers))

    target = flops(matched_pruning)
    if not flops(with_ratio(1)) <= target <= flops(with_ratio(GRID)):
        raise UserError(
            f"schedule.match: no keep ratio at layers {list(pruning.layers)} gives the matched"
            " configuration's FLOPs; prune from an earlier layer on, or match 'count'"
        )
    # Counts are whole tokens, so FLOPs rise in steps; of the two steps around the target the nearer is taken.
    above = bisect_left(range(GRID + 1), target, lo=1, key=lambda step: flops(with_ratio(step)))
    nearest = min((max(1, above - 1), above), key=lambda step: abs(flops(with_ratio(step)) - target))
    return with_ratio(nearest)
