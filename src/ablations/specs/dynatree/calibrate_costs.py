"""Spec of `ablations.dynatree.calibrate_costs`."""

from pydantic import PositiveInt

from ablations.core.contract import Contract
from ablations.specs.dynatree.arm import Calibrated, TreePruning
from ablations.specs.dynatree.calibrate_drafter import AcceptanceSpec


class DraftTiming(Contract):
    """How costs of drafting are measured."""

    pruning: TreePruning = TreePruning()
    """Pruning of the trees that are decoded to time drafting; wide levels are timed on unpruned ones."""
    timed: PositiveInt = 2
    """Validation prompts of each kind that are decoded to time drafting."""


class CostSpec(DraftTiming, Calibrated, AcceptanceSpec):
    """Job of `ablations.dynatree.calibrate_costs`: what drafting costs, and what it brings."""
