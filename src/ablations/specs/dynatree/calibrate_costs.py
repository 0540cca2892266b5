"""Spec of `ablations.dynatree.calibrate_costs`, and the sizes of forward that it times."""

from typing import Self

from pydantic import PositiveInt, model_validator

from ablations.specs.dynatree.arm import DraftSpec, Shape, check_room
from ablations.specs.dynatree.prompts import Continued, Prompted
from ablations.specs.lm import Compute


class CostTiming(Continued):
    """How costs are measured."""

    prefix: PositiveInt = 256
    """Tokens in the cache while costs are measured."""
    repeats: PositiveInt = 7
    """Timed forwards of each size; the fastest counts."""


class CostSpec(CostTiming, Prompted):
    """Job of `ablations.dynatree.calibrate_costs`: what drafting and verifying cost, and bring.

    Its prompts are validation prompts, whose greedy continuations say which drafted nodes are accepted.
    """

    drafter: DraftSpec
    """Who drafts."""
    shape: Shape
    """Largest depth and branching of a tree."""
    max_nodes: PositiveInt
    """Most nodes of a tree below its root."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _a_path_has_room(self) -> Self:
        check_room(self.shape.depth, self.max_nodes, "max_nodes")
        return self


def row_counts(most: int) -> list[int]:
    """Rows of a calibration's target forwards: all up to 8, then four to every doubling, and `most`."""
    counts = {round(8 * 2 ** (step / 4)) for step in range(64)} | set(range(1, 9)) | {most}
    return sorted(count for count in counts if count <= most)
