"""Attention of a prompt's last tokens to the others, at one layer, without the full attention matrix."""

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import rotate_half

from ablations.lm.layered import LayeredLM, Rotary


class WindowAttention(nn.Module):
    """How much the last rows attend to each row at the input of a layer.

    Only keys, the window's queries and their products are computed.

    Args:
        lm: Model, before its weights are packed.
        layer: The layer, counted from 0.
        window: Last rows whose attention is taken.
    """

    def __init__(self, lm: LayeredLM, layer: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.kv_heads = lm.kv_heads
        self.norm = lm.layers[layer].input_layernorm
        self.queries, self.keys = lm.query_and_key(layer)

    def forward(self, states: Tensor, rotary: Rotary) -> Tensor:
        """Attention to each row, a mean over heads and queries.

        Args:
            states: ``[rows, hidden]``, input of the layer.
            rotary: Cosines and sines of the rows.

        Returns:
            ``[rows]`` float32, which sum to one. A query has no attention to the rows after it.
        """
        rows = states.shape[0]
        window = min(self.window, rows)
        normed = self.norm(states)
        cosines, sines = rotary[0][0], rotary[1][0]
        keys = self.keys(normed).view(rows, self.kv_heads, -1).transpose(0, 1)
        queries = self.queries(normed[-window:]).view(window, self.kv_heads, -1, keys.shape[2])
        queries = _rotated(queries.permute(1, 2, 0, 3), cosines[-window:], sines[-window:]).float()
        keys = _rotated(keys, cosines, sines).float()
        # A group's queries are rows of one head, so that keys are not repeated.
        products = (queries.flatten(1, 2) @ keys.transpose(1, 2)).view(-1, window, rows)
        later = torch.ones(window, rows, dtype=torch.bool, device=states.device).triu(rows - window + 1)
        scaled = (products * keys.shape[2] ** -0.5).masked_fill(later, -torch.inf)
        return scaled.softmax(-1).mean((0, 1))


def _rotated(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the first dimensions of ``[..., rows, head_dim]``, as many as ``[rows, rotary_dim]`` has."""
    turned, rest = heads.tensor_split([cosines.shape[-1]], dim=-1)
    return torch.cat([turned * cosines + rotate_half(turned) * sines, rest], dim=-1)
