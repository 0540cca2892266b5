"""Partition of layers and pruning stages over the ranks of a pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ablations.core.errors import UserError


@dataclass(frozen=True)
class LayerRange:
    """Layers and stages of one rank.

    Attributes:
        layers: Consecutive layers.
        stages: Stages that the rank runs, counted from 0 over the whole prefill: those at its layers, except
            that a stage on a boundary may be run by the sender. Earlier ranks have run the stages below
            ``stages.start``.
    """

    layers: range
    stages: range


def partition(
    num_layers: int, stage_layers: Sequence[int], ranks: int, prune: Literal["before", "after"]
) -> tuple[LayerRange, ...]:
    """Partition consecutive layers evenly over ranks; the first ranks get one more if there is a remainder.

    A stage at the first layer of a rank lies on a boundary. With `before` the sender runs it, and only
    survivors are sent; with `after` the receiver runs it, and all living tokens are sent.

    Args:
        num_layers: Layers of the model.
        stage_layers: Ascending layers at whose input a stage prunes.
        ranks: Processes.
        prune: Whether a stage on a boundary runs before or after sending.

    Raises:
        UserError: there are more ranks than layers, or no stage lies on a boundary with `after`, which would
            be the same arm as `before`.
    """
    if ranks > num_layers:
        raise UserError(
            f"pipeline.ranks: {ranks} ranks for {num_layers} layers; lower it to at most {num_layers}"
        )
    sizes = [len(layers) for layers in np.array_split(np.arange(num_layers), ranks)]
    starts = [0, *np.cumsum(sizes).tolist()]
    boundaries = starts[1:-1]
    if prune == "after" and not set(boundaries) & set(stage_layers):
        raise UserError(
            "pipeline.prune: 'after' differs from 'before' only where a stage lies on a boundary, and none"
            f" of schedule.layers {list(stage_layers)} is one of the boundary layers {boundaries} of"
            f" {ranks} ranks; change schedule.layers or pipeline.ranks"
        )
    # First stage of each rank: with `before`, a stage at the rank's first layer belongs to the sender.
    side = "right" if prune == "before" else "left"
    first_stages = [0, *np.searchsorted(stage_layers, boundaries, side).tolist(), len(stage_layers)]
    return tuple(
        LayerRange(range(*layers), range(*stages))
        for layers, stages in zip(pairwise(starts), pairwise(first_stages), strict=True)
    )
