"""Attention of a draft in training, whose every row drafts several tokens in a row."""

import torch
from torch import Tensor


class GrownRows:
    """Keys and values of the rows of all drafted tokens so far, one block of rows for each token."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Append a block; return all of them (the interface of `transformers` layers)."""
        self._keys.append(keys)
        self._values.append(values)
        return torch.cat(self._keys, dim=2), torch.cat(self._values, dim=2)


def unrolled_mask(rows: int, step: int, device: torch.device) -> Tensor:
    """What the rows of drafted token `step` (from 0) attend to.

    When a row drafts its `step`-th token in a row, the target's states end `step` rows before: up to
    there it sees the first block, whose rows stand on the target's states, and then, of each block
    after, the one row that was drafted on the way.

    Returns:
        ``[1, 1, rows, (step + 1) * rows]`` bool.
    """
    places = torch.arange(rows, device=device)
    behind = places[:, None] - places
    blocks = [behind >= step, *(behind == step - block for block in range(1, step + 1))]
    return torch.cat(blocks, dim=1)[None, None]
