"""Spec of `ablations.dynatree.distil`."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract, conflict
from ablations.specs.lm import Compute, GradientCompute, Named


class DistilSpec(Contract):
    """Job of `ablations.dynatree.distil`: training of a draft on what the target wrote."""

    start: Named | None = None
    """Draft that training goes on from (a `draft.safetensors`, relative to the working directory); null
    starts from the ridge regression."""
    vocabulary: PositiveInt = 8192
    """Tokens that the draft's head knows, the most frequent ones; those of `start` where there is one."""
    unroll: PositiveInt = 2
    """Tokens drafted in a row while training, each on the draft's own states before."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Weight of a drafted token's loss against that of the token before."""
    epochs: NonNegativeInt = 1
    """Passes over the sequences; 0 takes `start` as it is, and reads none."""
    batch: PositiveInt = 4
    """Sequences per step."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate: of Muon for the matrices, of AdamW for the rest."""
    heldout: PositiveInt = 32
    """Sequences that are not trained on, and tell how often the draft agrees with the target."""
    seed: NonNegativeInt = 0
    """Seed of initial weights and order."""
    compute: GradientCompute = Compute(dtype="bfloat16")
    """How the job computes; products alone are in this data type, weights stay in float32."""

    @model_validator(mode="after")
    def _something_is_written(self) -> Self:
        if not self.epochs and self.start is None:
            raise conflict("epochs", "0 epochs train nothing; raise it, or name a draft in 'start'")
        return self
