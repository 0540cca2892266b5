"""What scores regress to: saliency on a scale that a squared error can fit."""

import torch
from torch import Tensor

from ablations.study.contracts.sdtp import Measure

# Where the logarithm of saliency ends; measured values lie between 1e-6 and 10.
SMALLEST = 1e-9


def regression_targets(saliency: Tensor, living: Tensor, measure: Measure) -> Tensor:
    """Saliency on a scale that a squared error can fit, standardised over the living tokens of each stage.

    Saliency has a heavy tail (the first token's lies tens of standard deviations above the others), and a
    squared error on it fits little else. The logarithm has no such tail and keeps the order of tokens. For
    signed saliency, whose tails are on both sides of zero, its odd counterpart does: the inverse
    hyperbolic sine, linear below the median magnitude and logarithmic above it. (A logarithm of the
    magnitude with the sign put back would tear small values of either sign apart.)

    Args:
        saliency: ``[..., tokens]`` float32, not negative unless signed.
        living: ``[..., tokens]`` bool.
        measure: What saliency means.
    """
    if measure != "signed":
        return standardise(saliency.clamp(min=SMALLEST).log(), living)
    median = saliency.abs().masked_fill(~living, torch.nan).nanmedian(-1, keepdim=True).values
    return standardise(torch.asinh(saliency / median.nan_to_num().clamp(min=SMALLEST)), living)


def standardise(values: Tensor, living: Tensor) -> Tensor:
    """Zero mean and unit variance over the living tokens of each stage.

    Args:
        values: ``[..., tokens]`` float32.
        living: ``[..., tokens]`` bool.

    Returns:
        ``[..., tokens]`` float32, zero where not living.
    """
    weight = living.float()
    number = weight.sum(-1, keepdim=True).clamp(min=1)
    centred = (values - (values * weight).sum(-1, keepdim=True) / number) * weight
    variance = centred.square().sum(-1, keepdim=True) / number
    return centred / variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)
