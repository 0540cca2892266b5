"""Spec and result of the job that replays many decoding configurations."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ablations.core.contract import Contract, Proportion, conflict
from ablations.core.record import Digests, Environment
from ablations.specs.dynatree.arm import Calibrated, DraftSpec, Shape, TreePruning, check_tree, tree_nodes
from ablations.specs.dynatree.calibrate_target import Rising
from ablations.specs.dynatree.prompts import Prompted
from ablations.specs.lm import Compute


class GridTree(Contract):
    """One configuration of a grid."""

    shape: Shape
    """Shape of a draft."""
    pruning: TreePruning
    """What keeps the tree small."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        check_tree(self.shape, self.pruning, None)
        return self

    @property
    def nodes(self) -> int:
        """Most nodes below the root."""
        return tree_nodes(self.shape.depth, self.shape.branching, self.pruning.max_nodes)


class GridSpec(Calibrated, Prompted):
    """Job of `ablations.dynatree.grid`: what configurations would accept and cost, by replay."""

    drafter: DraftSpec
    """Who drafts."""
    trees: Annotated[tuple[GridTree, ...], Field(min_length=1)]
    """Configurations."""
    lengths: Rising
    """Tokens to which each configuration is replayed, rising to `new_tokens`."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _end_with_the_longest(self) -> Self:
        if self.lengths[-1] != self.new_tokens:
            raise conflict("lengths", f"must rise to 'new_tokens' ({self.new_tokens})")
        return self


class GridSample(Contract):
    """One prompt under one configuration, replayed over its first tokens."""

    document: str
    """Identifier of the prompt."""
    kind: str
    """Kind of prompt."""
    new_tokens: PositiveInt
    """Tokens replayed: the length asked for, or fewer where end of sequence came before."""
    repeated_4grams: Proportion
    """Share of their 4-grams that occurred before in them."""
    rounds: NonNegativeInt
    """Rounds, one target forward each; 0 where prefill gives the only token."""
    accepted: NonNegativeInt
    """Draft tokens accepted; bonus tokens are not counted."""
    drafted: NonNegativeInt
    """Drafted nodes that the target would verify."""
    seconds: NonNegativeFloat
    """Price of the rounds: calibrated costs of all target forwards and of all drafted levels."""
    reference_seconds: NonNegativeFloat
    """Price of the same tokens one by one: a target forward of one row for each after the first."""


class GridPoint(Contract):
    """One configuration replayed to one length."""

    tree: GridTree
    """The configuration."""
    tokens: PositiveInt
    """Most tokens generated per prompt."""
    samples: tuple[GridSample, ...]
    """One per prompt."""


class Grid(Contract):
    """Output of `ablations.dynatree.grid`; its seconds are prices, nothing was timed."""

    spec: GridSpec
    """What was replayed."""
    points: tuple[GridPoint, ...]
    """One per configuration and length."""
    environment: Environment
    """Where and with what."""
    digests: Digests
    """What determines it."""
