"""Checks that logits are finite, made on values that the host reads anyway.

A model that overflows in float16 has logits of NaN or infinity. An argmax over NaN is a token like any other,
so without these checks such a model decodes to the end and agrees with itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ablations.core.errors import UserError

NOT_FINITE = -1
"""Marks a token whose logits were not finite; no vocabulary has this id."""

_REMEDIES = {
    torch.float16: "use bfloat16 or float32",
    torch.bfloat16: "use float32",
    torch.float32: "the checkpoint is damaged or its weights are too large, use another one",
}


def greedy_ids(logits: Tensor) -> Tensor:
    """The most probable token of each row, the first of equal ones.

    Args:
        logits: ``[..., vocabulary]``.

    Returns:
        ``[...]`` int64, on the same device; `NOT_FINITE` where a logit is NaN or infinite.
    """
    # Maximum and minimum propagate NaN, and on the CPU take no longer than an argmax.
    maximum, ids = logits.max(dim=-1)
    minimum = logits.amin(dim=-1)
    return ids.where((minimum > -torch.inf) & (maximum < torch.inf), NOT_FINITE)


def require_finite(finite: bool, what: str, dtype: torch.dtype) -> None:
    """Raise unless values were finite.

    Args:
        finite: Whether the values were finite.
        what: Name of the values, for the message.
        dtype: Data type that they were computed in.

    Raises:
        UserError: `finite` is False; the message names the data type and the fix.
    """
    if not finite:
        name = str(dtype).removeprefix("torch.")
        fix = _REMEDIES.get(dtype, "use float32")
        raise UserError(f"compute.dtype: NaN or infinity in {what}, computed in {name}; {fix}")


@contextmanager
def finite_logits(heads: list[nn.Module], what: str, dtype: torch.dtype) -> Iterator[None]:
    """Check the logits of all forwards within the block, by one read from the device at its end.

    Args:
        heads: LM heads of the models that run.
        what: Name of the logits, for the message.
        dtype: Data type that the logits are computed in.

    Raises:
        UserError: a logit was NaN or infinite.
    """
    extremes: list[Tensor] = []

    def record(head: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        extremes.extend(logits.aminmax())

    handles = [head.register_forward_hook(record) for head in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    require_finite(not extremes or bool(torch.stack(extremes).isfinite().all()), what, dtype)
