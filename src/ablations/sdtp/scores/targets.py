"""Regression targets of scores: saliency on a scale that a squared error can fit."""

import torch
from torch import Tensor

from ablations.specs.sdtp.saliency import SaliencyMeasure

# Lower bound of saliency before the logarithm; measured values lie between 1e-6 and 10.
SMALLEST = 1e-9


def regression_targets(saliency: Tensor, living: Tensor, measure: SaliencyMeasure) -> Tensor:
    """Saliency on a scale that a squared error can fit, standardised over the living tokens of each stage.

    Saliency has a heavy tail: the first token's lies tens of standard deviations above the others, and a
    squared error would fit little else. The logarithm has no such tail and keeps the order of tokens. Signed
    saliency has tails on both sides of zero; for it the odd counterpart of the logarithm is used, the inverse
    hyperbolic sine, which is linear below the median magnitude and logarithmic above it. (The logarithm of
    the magnitude, with the sign restored, would separate small values of either sign.)

    Args:
        saliency: ``[..., tokens]`` float32, not negative unless signed.
        living: ``[..., tokens]`` bool.
        measure: Measure of the saliency.
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
        ``[..., tokens]`` float32, zero for dropped tokens.
    """
    weight = living.float()
    count = weight.sum(-1, keepdim=True).clamp(min=1)
    centred = (values - (values * weight).sum(-1, keepdim=True) / count) * weight
    variance = centred.square().sum(-1, keepdim=True) / count
    return centred / variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)
