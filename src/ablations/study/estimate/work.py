"""Work and memory of forwards of one model: operations, bytes moved, layers launched, bytes held."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from ablations.specs.lm import Dtype
from ablations.specs.sdtp.counts import Preserve, stage_counts
from ablations.study.estimate.shapes import ModelShape

BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Work:
    """Work of a job, in the units of a device's rates.

    Attributes:
        flops: Floating-point operations of forwards over many rows.
        bytes: Bytes moved by forwards over few rows, whose time is that of the memory.
        layers: Layer calls whose kernels are launched one by one.
        replayed: Layer calls of forwards over few rows, which a GPU replays from a CUDA graph.
        loaded: Bytes of checkpoints read and checked.
    """

    flops: float = 0.0
    bytes: float = 0.0
    layers: float = 0.0
    replayed: float = 0.0
    loaded: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(amount * times for amount in astuple(self)))


def forward(shape: ModelShape, rows: Sequence[float], head_rows: int) -> Work:
    """A causal forward over many rows.

    Args:
        shape: Model.
        rows: Rows of each layer that runs.
        head_rows: Rows of the LM head.
    """
    per_row = 2 * shape.matrices / shape.layers
    flops = sum(per_row * count + 2 * shape.attention_width * count**2 for count in rows)
    return Work(flops=flops + 2 * shape.vocabulary * shape.hidden * head_rows, layers=len(rows))


def dense(shape: ModelShape, tokens: int, head_rows: int = 1, first: int = 0) -> Work:
    """A forward over `tokens` rows of all layers from `first` on."""
    return forward(shape, [tokens] * (shape.layers - first), head_rows)


def step(shape: ModelShape, dtype: Dtype, context: float, rows: float = 1) -> Work:
    """A forward over few rows with `context` rows in the cache: weights and cache are read once."""
    weights = shape.matrices + shape.vocabulary * shape.hidden
    read = (weights + 2 * shape.layers * shape.kv_width * context) * BYTES[dtype]
    return Work(flops=2 * weights * (rows - 1), bytes=read, replayed=shape.layers)


def living_rows(
    tokens: int, layers: Sequence[int], ratios: Sequence[float], preserve: Preserve, depth: int
) -> list[int]:
    """Rows of each of the first `depth` layers in a pruned prefill of `tokens` tokens."""
    kept = dict(zip(layers, stage_counts(tokens, ratios, preserve.of(tokens).tokens), strict=True))
    rows, living = [], tokens
    for layer in range(depth):
        living = kept.get(layer, living)
        rows.append(living)
    return rows


def weight_bytes(shape: ModelShape, dtype: Dtype) -> int:
    """Bytes of the weights."""
    return shape.parameters * BYTES[dtype]


def kv_bytes(shape: ModelShape, dtype: Dtype, tokens: float) -> float:
    """Bytes of a KV cache of `tokens` rows."""
    return 2 * shape.layers * shape.kv_width * BYTES[dtype] * tokens


def activation_bytes(shape: ModelShape, dtype: Dtype, tokens: int, head_rows: int = 1) -> float:
    """Bytes that a forward without gradients holds: one layer's activations, or the logits if larger."""
    layer = tokens * (4 * shape.hidden + 3 * shape.intermediate) * BYTES[dtype]
    return max(layer, head_rows * shape.vocabulary * (4 + BYTES[dtype]))


def gradient_bytes(
    shape: ModelShape, dtype: Dtype, tokens: int, first: int, masked: bool, loss_tokens: int
) -> float:
    """Bytes that a forward from layer `first` on keeps for its backward.

    Args:
        shape: Model.
        dtype: Data type.
        tokens: Rows.
        first: First layer with a gradient.
        masked: Whether attention keeps its weights, since no fused kernel takes a mask with a gradient.
        loss_tokens: Rows of the head, whose logits and gradients are held in float32 and in `dtype`.
    """
    per_token = 10 * shape.hidden + 4 * shape.intermediate
    weights = 3 * shape.heads * tokens**2 if masked else 0.0
    head = loss_tokens * shape.vocabulary * 2 * (4 + BYTES[dtype])
    return (shape.layers - first) * (tokens * per_token + weights) * BYTES[dtype] + head
