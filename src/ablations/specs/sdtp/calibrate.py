"""Spec and result of `ablations.sdtp.calibrate`: selection rules that keep as much as top-k."""

from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from ablations.core.contract import Contract
from ablations.specs.lm import Compute
from ablations.specs.sdtp.counts import Preserve, Stages, check_prunable


class CalibrationSpec(Stages):
    """Job of `ablations.sdtp.calibrate`: what makes another selection rule keep as much as top-k.

    One number per stage, so that over the validation prompts the mean of the kept tokens is top-k's count.
    """

    selection: Literal["top_p", "threshold"]
    """The rule to calibrate."""
    preserve: Preserve
    """Tokens that no stage may drop."""
    documents: PositiveInt
    """Validation documents, one prompt each."""
    tokens: PositiveInt
    """Tokens of a prompt."""
    compute: Compute
    """How the job computes."""

    @model_validator(mode="after")
    def _prunable(self) -> Self:
        check_prunable(self.preserve, self.tokens)
        return self


class Calibration(Contract):
    """Output of `ablations.sdtp.calibrate`."""

    values: tuple[float, ...]
    """Per stage: the probability mass to keep (`top_p`) or the lowest score kept (`threshold`)."""
    counts: tuple[PositiveInt, ...]
    """Tokens that top-k keeps at each stage, of a prompt of the calibrated length."""
    mean_kept: tuple[PositiveFloat, ...]
    """Tokens that the rule keeps at each stage, a mean over the validation prompts."""
