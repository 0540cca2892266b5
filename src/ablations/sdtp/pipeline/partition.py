"""Which rank runs which layers and which pruning stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ablations.study.errors import UserError


@dataclass(frozen=True)
class Part:
    """The share of one rank.

    Attributes:
        layers: Consecutive layers.
        stages: Stages it runs, counted from 0 over the whole prefill; the stages of its own layers, except
            where one lies on a boundary and the sender runs it. Earlier ranks have run those below
            ``stages.start`` before its input arrives.
    """

    layers: range
    stages: range


def partition(
    num_layers: int, stage_layers: Sequence[int], ranks: int, prune: Literal["before", "after"]
) -> tuple[Part, ...]:
    """Spread consecutive layers evenly over ranks; the first ranks get one more where that does not work out.

    A stage at the first layer of a rank lies on the boundary: with `before` the sender runs it, so that only
    survivors cross; with `after` the receiver runs it, and all living tokens cross.

    Args:
        num_layers: Layers of the model.
        stage_layers: Ascending layers at whose input a stage prunes.
        ranks: Processes.
        prune: Who runs a stage that lies on a boundary.

    Raises:
        UserError: there are more ranks than layers, or `after` where no stage lies on a boundary, which
            would be the same arm as `before`.
    """
    if ranks > num_layers:
        raise UserError(
            f"pipeline.ranks: {ranks} ranks for {num_layers} layers; lower it to at most {num_layers}"
        )
    shares = [len(share) for share in np.array_split(np.arange(num_layers), ranks)]
    starts = [0, *np.cumsum(shares).tolist()]
    boundaries = starts[1:-1]
    if prune == "after" and not set(boundaries) & set(stage_layers):
        raise UserError(
            "pipeline.prune: 'after' differs from 'before' only where a stage lies on a boundary, and none"
            f" of schedule.layers {list(stage_layers)} is one of the boundary layers {boundaries} of"
            f" {ranks} ranks; change schedule.layers or pipeline.ranks"
        )
    # Where each rank's stages begin: the stage at its very first layer is the sender's with `before`.
    side = "right" if prune == "before" else "left"
    firsts = [0, *np.searchsorted(stage_layers, boundaries, side).tolist(), len(stage_layers)]
    return tuple(
        Part(range(*layers), range(*stages))
        for layers, stages in zip(pairwise(starts), pairwise(firsts), strict=True)
    )
