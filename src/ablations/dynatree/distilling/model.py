"""A draft distilled from a target: one decoder layer on the target's last-layer states."""

import json
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from ablations.core.errors import UserError
from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM

DRAFT_FILE = "draft.safetensors"
EPSILON = 1e-5


class DistilledDraft(nn.Module):
    """Predicts the target's state after a token from the state before it and the token.

    A state is the target's last-layer state, normalised by the final norm without its scale; the scale is
    folded into the draft's head. A linear map joins state and token embedding, and one decoder layer attends
    to the joined rows so far (EAGLE, arXiv 2401.15077, with the target's embeddings and head frozen). Below
    the root of a tree the draft's own prediction replaces the target's state. The head has rows for the most
    frequent tokens only (FR-Spec, arXiv 2502.14856).

    Args:
        config: Sizes of the decoder layer; `vocab_size` is that of the head.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.join = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.layer = LlamaDecoderLayer(config, layer_idx=0)
        self.rotary = LlamaRotaryEmbedding(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.register_buffer("tokens", torch.zeros(config.vocab_size, dtype=torch.int64))

    @classmethod
    def for_target(cls, target: LayeredLM, tokens: Tensor) -> Self:
        """A new draft with the target's sizes, and with the head's rows for `tokens` ``[vocabulary]`` int64.

        The head is frozen. The decoder layer starts as the identity: it adds zero to the residual stream.
        """
        config = target.config
        draft = cls(
            _layer_config(
                vocab_size=len(tokens),
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=target.kv_heads,
                head_dim=target.head_dim,
                max_position_embeddings=config.max_position_embeddings,
            )
        )
        nn.init.zeros_(draft.layer.self_attn.o_proj.weight)
        nn.init.zeros_(draft.layer.mlp.down_proj.weight)
        norm, head = target.norm, target.lm_head
        rows = head.weight[tokens].float()
        bias = (
            torch.zeros(len(tokens), device=rows.device) if head.bias is None else head.bias[tokens].float()
        )
        if isinstance(norm, nn.LayerNorm):
            bias = bias + rows @ norm.bias.float()
        draft.head.weight = nn.Parameter(rows * norm.weight.float(), requires_grad=False)
        draft.head.bias = nn.Parameter(bias, requires_grad=False)
        draft.tokens = tokens.clone()
        return draft.to(rows.device)

    def forward(
        self, states: Tensor, embedded: Tensor, positions: Tensor, mask: Tensor | None, cache: StaticCache
    ) -> Tensor:
        """Predict the states after tokens.

        Args:
            states: ``[batch, rows, hidden]``, the states before the tokens, the target's or predicted ones.
            embedded: ``[batch, rows, hidden]``, the tokens' embeddings in the target.
            positions: ``[1, rows]`` int64.
            mask: ``[1, 1, rows, keys]``, as `LayeredLM.layer` takes it.
            cache: Takes the rows' keys and values; only its `update` is used.

        Returns:
            Predicted states, ``[batch, rows, hidden]``, normalised.
        """
        joined = self.join(joined_inputs(states, embedded))
        rotary = self.rotary(joined, positions)
        output = self.layer(
            joined, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, use_cache=True
        )
        return F.rms_norm(output, output.shape[-1:], eps=EPSILON)

    def save(self, path: Path) -> None:
        """Write weights (bfloat16) and sizes to one safetensors file."""
        weights = {
            name: (tensor.bfloat16() if tensor.is_floating_point() else tensor.int()).contiguous().cpu()
            for name, tensor in self.state_dict().items()
        }
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
        sizes = {name: getattr(self.config, name) for name in (*names, "max_position_embeddings")}
        save_file(weights, path, metadata={"sizes": json.dumps(sizes)})

    @classmethod
    def load(cls, path: Path, target: LayeredLM) -> Self:
        """Read a draft written by `save`; it is frozen, on the target's device and in its data type.

        Raises:
            UserError: the file is not a draft, or a draft for a target of other sizes.
        """
        try:
            with safe_open(path, "pt") as file:
                sizes = json.loads((file.metadata() or {})["sizes"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            draft = cls(_layer_config(vocab_size=len(weights["tokens"]), **sizes))
            draft.load_state_dict(weights)
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise UserError(f"{path}: not a distilled draft ({error}); train one for this target") from None
        hidden, vocabulary = target.config.hidden_size, target.lm_head.out_features
        if draft.config.hidden_size != hidden or int(draft.tokens.max()) >= vocabulary:
            raise UserError(
                f"{path}: a draft for states of {draft.config.hidden_size} numbers and token ids up to"
                f" {int(draft.tokens.max())} does not fit the target ({hidden} numbers, {vocabulary} tokens);"
                " distil one from this target"
            )
        draft = draft.to(target.device, target.dtype)
        # In float32: rounded frequencies would rotate distant tokens by other angles than in training.
        draft.rotary = LlamaRotaryEmbedding(draft.config).to(target.device)
        return draft.eval().requires_grad_(False)


def joined_inputs(states: Tensor, embedded: Tensor) -> Tensor:
    """States and normalised embeddings, ``[..., hidden]`` each, concatenated to ``[..., 2 * hidden]``."""
    return torch.cat([states, F.rms_norm(embedded, embedded.shape[-1:], eps=EPSILON)], dim=-1)


def frequent_tokens(counts: Tensor, size: int) -> Tensor:
    """The `size` most frequent tokens of `counts` ``[vocabulary]``, ascending int64.

    Of equally frequent tokens the smaller id counts as more frequent, since tokenizers merge frequent pairs
    first.
    """
    return counts.argsort(descending=True, stable=True)[:size].sort().values


def _layer_config(**sizes: int) -> LlamaConfig:
    return LlamaConfig(**sizes, rms_norm_eps=EPSILON, attn_implementation="sdpa")  # type: ignore[call-arg]
