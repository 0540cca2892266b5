"""What the paper says of the models and of saliency, from the manifests of artefacts."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from ablations.core.contract import Contract
from ablations.paper.results.files import RecordFile


class ModelFacts(Contract):
    """A model that was measured."""

    parameters: PositiveInt
    """Parameters."""
    layers: PositiveInt
    """Decoder layers."""
    weights: Literal["as published", "dequantised", "random"]
    """Where its weights come from."""


class SaliencyMap(Contract):
    """Saliency of the tokens of held-out windows at the input of each pruning layer."""

    file: RecordFile
    """Manifest of the table that it is from."""
    document: str
    """Document whose window is shown."""
    layers: tuple[NonNegativeInt, ...]
    """Layers, counted from 0."""
    tokens: tuple[tuple[float, ...], ...]
    """Per layer and token of that window: share of the layer's tokens whose saliency is at most its own."""
    windows: PositiveInt
    """Held-out windows."""
    salient: tuple[NonNegativeFloat, ...]
    """Per layer: the smallest share of tokens that holds `mass` of all saliency, a mean over windows."""
    salient_by_window: tuple[tuple[NonNegativeFloat, ...], ...]
    """The same of each window: a row per layer."""
    mass: float
    """Share of saliency that salient tokens hold together."""
