"""Spec and result of `ablations.dynatree.calibrate_drafter`."""

from typing import Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion
from ablations.specs.dynatree.arm import DraftSpec, Shape, check_room
from ablations.specs.dynatree.prompts import Prompted
from ablations.specs.lm import Compute


class CountedTrees(Contract):
    """Trees on which acceptance is counted."""

    shape: Shape = Shape(depth=8, branching=3)
    """Largest depth and branching of the trees on which acceptance is counted."""
    max_nodes: PositiveInt = 64
    """Most nodes of a cost-aware tree, and of the trees on which acceptance is counted."""

    @model_validator(mode="after")
    def _a_path_has_room(self) -> Self:
        check_room(self.shape.depth, self.max_nodes, "max_nodes")
        return self


class AcceptanceSpec(CountedTrees, Prompted):
    """Job of `ablations.dynatree.calibrate_drafter`: how often what a drafter proposes turns out right.

    The target's greedy continuations of its prompts say which drafted nodes are accepted.
    """

    drafter: DraftSpec
    """Who drafts."""
    compute: Compute
    """How the job computes."""


class Acceptance(Contract):
    """Share of proposed tokens that the target accepts after an accepted token, by stated probability."""

    stated: tuple[NonNegativeFloat, ...]
    """Probabilities that the drafter states, rising from 0 to 1."""
    accepted: tuple[Proportion, ...]
    """Shares that are accepted, never falling."""
