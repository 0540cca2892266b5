"""Logits that are NaN or infinite, as float16 overflows to: told with what the host reads anyway.

An argmax over NaN is a token like any other, so a model that overflows decodes to the end and agrees with
itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ablations.study.errors import UserError

NOT_FINITE = -1
"""Stands for a token whose logits were not finite; no vocabulary has it."""

_MENDED_BY = {
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
    # Both propagate NaN. On the CPU they take no longer than an argmax.
    greatest, ids = logits.max(dim=-1)
    least = logits.amin(dim=-1)
    return ids.where((least > -torch.inf) & (greatest < torch.inf), NOT_FINITE)


def require_finite(finite: bool, what: str, dtype: torch.dtype) -> None:
    """Check what the host was told.

    Args:
        finite: Whether it is finite.
        what: Its name, for the message.
        dtype: Data type that it was computed in.

    Raises:
        UserError: it is not; names the data type and the way out.
    """
    if not finite:
        name = str(dtype).removeprefix("torch.")
        fix = _MENDED_BY.get(dtype, "use float32")
        raise UserError(f"compute.dtype: NaN or infinity in {what}, computed in {name}; {fix}")


@contextmanager
def finite_logits(heads: list[nn.Module], what: str, dtype: torch.dtype) -> Iterator[None]:
    """Check the logits of all forwards within the block, by one read at its end.

    Args:
        heads: The LM heads of the models that run.
        what: Name of the logits, for the message.
        dtype: Data type that they are computed in.

    Raises:
        UserError: a logit was NaN or infinite.
    """
    extremes: list[Tensor] = []

    def watch(head: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        extremes.extend(logits.aminmax())

    handles = [head.register_forward_hook(watch) for head in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    require_finite(not extremes or bool(torch.stack(extremes).isfinite().all()), what, dtype)
