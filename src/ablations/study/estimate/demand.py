"""What a job needs: work and memory, from its spec and the shapes of its models."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from ablations.study.contracts.base import Contract
from ablations.study.contracts.dynatree import NgramSpec
from ablations.study.contracts.lm import Dtype, PrepareModelSpec, PrepareTextSpec
from ablations.study.estimate.shapes import ModelShape
from ablations.study.estimate.work import Work, activation_bytes, kv_bytes, weight_bytes

Shapes = Mapping[str, ModelShape]
"""Shapes of a job's models: `model`, and `draft` where it has one."""

Inputs = Mapping[str, Any]
"""Specs of a job's input artefacts, by name; each kind of job knows what its own are."""


@dataclass(frozen=True)
class Demand:
    """What a job needs.

    Attributes:
        work: What it computes, moves and launches.
        memory: Bytes that its device must hold at once.
    """

    work: Work
    memory: float


@singledispatch
def demand(spec: Contract, shapes: Shapes, inputs: Inputs) -> Demand:
    """What a job needs.

    Args:
        spec: Its spec.
        shapes: Shapes of its models.
        inputs: Specs of its input artefacts, by name.
    """
    raise NotImplementedError(type(spec).__name__)


@demand.register(PrepareTextSpec)
@demand.register(NgramSpec)
def _(spec: Contract, shapes: Shapes, inputs: Inputs) -> Demand:
    return Demand(Work(), 0.0)


@demand.register
def _(spec: PrepareModelSpec, shapes: Shapes, inputs: Inputs) -> Demand:
    # On the CPU, in the checkpoint's own data type: fetched, read, written, hashed.
    return Demand(Work(loaded=3 * weight_bytes(shapes["model"], "bfloat16")), 0.0)


def loaded(model: ModelShape, dtype: Dtype) -> Work:
    """Reading a checkpoint."""
    return Work(loaded=weight_bytes(model, dtype))


def resident(model: ModelShape, dtype: Dtype, tokens: int, head_rows: int) -> float:
    """Weights, a cache, and what a forward holds."""
    return (
        weight_bytes(model, dtype)
        + kv_bytes(model, dtype, tokens)
        + activation_bytes(model, dtype, tokens, head_rows)
    )
