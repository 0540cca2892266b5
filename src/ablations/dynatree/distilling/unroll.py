"""Attention of a draft in training, where every row drafts several consecutive tokens."""

import torch
from torch import Tensor


class UnrolledCache:
    """Keys and values of all rows, with one block of rows per drafted token so far."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Append a block; return all blocks (the interface of `transformers` layers)."""
        self._keys.append(keys)
        self._values.append(values)
        return torch.cat(self._keys, dim=2), torch.cat(self._values, dim=2)


def unrolled_mask(rows: int, step: int, device: torch.device) -> Tensor:
    """Attention mask of the rows that draft their token number `step`, from 0.

    At that step the target's last known state lies `step` rows back. A row attends to the first block, whose
    inputs are the target's states, up to that row, and to one row of each later block, the row that drafted
    the token on its path.

    Returns:
        ``[1, 1, rows, (step + 1) * rows]`` bool.
    """
    positions = torch.arange(rows, device=device)
    distance = positions[:, None] - positions
    blocks = [distance >= step, *(distance == step - block for block in range(1, step + 1))]
    return torch.cat(blocks, dim=1)[None, None]
