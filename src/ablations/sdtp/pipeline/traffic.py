"""Tensors sent between two ranks."""

import torch
from torch import Tensor, distributed

from ablations.sdtp.pipeline.group import connection_errors


def boundary_bytes(rows: int, hidden_size: int, dtype: torch.dtype) -> int:
    """Bytes of the hidden states of `rows` tokens: tokens x hidden x bytes per element."""
    return rows * hidden_size * dtype.itemsize


def send(message: Tensor, to: int) -> int:
    """Send a tensor to rank `to`, which must receive a tensor of the same shape and type.

    Returns:
        Bytes of the tensor.

    Raises:
        LostRankError: that rank ended.
    """
    message = message.contiguous()
    with connection_errors():
        distributed.send(message, to)
    return message.nbytes


def receive(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, source: int) -> Tensor:
    """Receive a tensor of known shape and type from rank `source`.

    Raises:
        LostRankError: that rank ended.
    """
    message = torch.empty(shape, dtype=dtype, device=device)
    with connection_errors():
        distributed.recv(message, source)
    return message
