"""A distilled draft in its fused form, in which it drafts."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.dynatree.distilling.model import EPSILON, DistilledDraft, joined_inputs
from ablations.lm.cache import StaticCache
from ablations.lm.fused import FusedLayer, merged_qkv, signed_rotary
from ablations.lm.packing import PackedLinear, pack_module


class FusedDraft(nn.Module):
    """The function of a `DistilledDraft` for one sequence, with few operators per level.

    If the target's weights are packed and the processor multiplies bfloat16, the draft computes in bfloat16.
    A draft need not be exact, and for few rows half the weights to read take half the time.

    Args:
        draft: The draft; its weights are copied.
        head: The target's head, which shows whether the target's weights are packed.
        capacity: Most rows of text and tree together.

    Attributes:
        dtype: Data type of the draft's states.
        tokens: ``[vocabulary]`` int64, the target's tokens in the draft's vocabulary.
    """

    def __init__(self, draft: DistilledDraft, head: nn.Module, capacity: int) -> None:
        super().__init__()
        use_bfloat16 = isinstance(head, PackedLinear) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.dtype = torch.bfloat16 if use_bfloat16 else draft.join.weight.dtype
        parts = nn.ModuleDict({"join": draft.join, "layer": draft.layer, "head": draft.head})
        parts = deepcopy(parts).to(self.dtype)
        parts["qkv"] = merged_qkv(parts["layer"].self_attn)
        pack_module(parts)
        self.join, self.head = parts["join"], parts["head"]
        self.register_buffer("tokens", draft.tokens)
        self._layer = FusedLayer(parts["layer"], parts["qkv"])
        self._sizes = (draft.config.num_key_value_heads, draft.config.head_dim, capacity)
        positions = torch.arange(capacity, device=draft.tokens.device)[None]
        cosines, sines = signed_rotary(*draft.rotary(draft.join.weight, positions))
        self.register_buffer("_cosines", cosines.to(self.dtype))
        self.register_buffer("_sines", sines.to(self.dtype))

    def forward(
        self, states: Tensor, embedded: Tensor, positions: Tensor, mask: Tensor | None, cache: StaticCache
    ) -> Tensor:
        """Predict the states after tokens, as `DistilledDraft.forward` does, for tensors without batch.

        Args:
            states: ``[rows, hidden]``, the states before the tokens.
            embedded: ``[rows, hidden]``, the tokens' embeddings in the target.
            positions: ``[rows]`` int64.
            mask: ``[1, 1, rows, keys]`` of the draft's data type; None as `LayeredLM.layer` takes it.
            cache: Takes the rows' keys and values.

        Returns:
            ``[rows, hidden]`` of the draft's data type.
        """
        joined = self.join(joined_inputs(states.to(self.dtype), embedded.to(self.dtype)))
        rotary = self._cosines[positions], self._sines[positions]
        output = self._layer(joined[None], mask, rotary, cache)[0]
        return F.rms_norm(output, output.shape[-1:], eps=EPSILON)

    def new_cache(self) -> StaticCache:
        """An empty static cache, on the draft's device."""
        return StaticCache(1, *self._sizes, self.dtype, self.tokens.device)
