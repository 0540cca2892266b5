"""A causal LM as embedding, decoder layers and head, taken apart through public classes only.

Both methods work below a model's own `forward`: SDTP changes the rows between layers, and DynaTree passes its
own mask, positions and cache. The layers themselves stay those of `transformers`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from ablations.core.errors import UserError
from ablations.lm.architecture import architecture_of
from ablations.lm.cache import StaticCache

Rotary = tuple[Tensor, Tensor]


def frozen_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with ``[out, in]`` weights and ``[out]`` biases that are not trained."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


class LayeredLM:
    """A `transformers` causal LM, run layer by layer at batch size 1.

    Of the checkpoint's settings for `generate`, only the end-of-sequence tokens stay. Penalties, suppressed
    tokens, stop strings, prompt lookup or a disabled cache would make `generate` something other than greedy
    decoding of this model.

    Raises:
        UserError: the architecture is not supported (`architecture_of`).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        # The keys of a configuration depend on the architecture.
        config: Any = model.config
        architecture = architecture_of(config)
        backbone = getattr(model, architecture.backbone)
        self.model = model
        self.config = config
        self.embedding: nn.Embedding = getattr(backbone, architecture.embedding)
        self.layers: nn.ModuleList = backbone.layers
        self.norm: nn.Module = getattr(backbone, architecture.norm)
        self.rotary_embedding: nn.Module = backbone.rotary_emb
        self.lm_head: nn.Module = model.get_output_embeddings()
        self._attention = architecture.attention
        self._cache_keyword = architecture.cache_keyword
        eos_ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        model.generation_config = GenerationConfig(eos_token_id=eos_ids)

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.embedding.weight.dtype

    @property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a sequence; empty if the checkpoint names none."""
        eos = self.model.generation_config.eos_token_id
        if eos is None:
            eos = self.config.eos_token_id
        return frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        config = self.config
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads

    def require_positions(self, tokens: int, key: str) -> None:
        """Check that the model has positions for a sequence.

        Args:
            tokens: Length of the sequence.
            key: Configuration key that sets the length, for the error.

        Raises:
            UserError: the sequence has more tokens than the model has positions.
        """
        positions = self.config.max_position_embeddings
        if tokens > positions:
            raise UserError(f"{key}: {tokens} tokens exceed the model's {positions} positions; lower it")

    def query_and_key(self, index: int) -> tuple[nn.Linear, nn.Linear]:
        """Linear layers from the normed input of layer `index` to its queries and keys, head after head.

        They are the layer's own, or made from the weights of a merged one; no layer may be packed yet.
        """
        attention = getattr(self.layers[index], self._attention)
        if hasattr(attention, "q_proj"):
            return attention.q_proj, attention.k_proj
        # A head's queries, keys and values follow each other (GPT-NeoX).
        merged = attention.query_key_value
        outputs = torch.arange(merged.out_features, device=self.device).view(-1, 3, self.head_dim)
        query, key = (
            frozen_linear(merged.weight[rows], None if merged.bias is None else merged.bias[rows])
            for rows in (outputs[:, 0].flatten(), outputs[:, 1].flatten())
        )
        return query, key

    def new_cache(self, capacity: int) -> StaticCache:
        """An empty static cache for `capacity` rows per layer."""
        return StaticCache(self.num_layers, self.kv_heads, self.head_dim, capacity, self.dtype, self.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ``[1, rows]`` int64 token ids; returns ``[1, rows, hidden]``."""
        return self.embedding(ids)

    def rotary(self, hidden: Tensor, positions: Tensor) -> Rotary:
        """Cosines and sines for ``[1, rows]`` int64 positions, each ``[1, rows, rotary_dim]``."""
        return self.rotary_embedding(hidden, position_ids=positions)

    def layer(
        self,
        index: int,
        hidden: Tensor,
        rotary: Rotary,
        mask: Tensor | None = None,
        cache: StaticCache | None = None,
    ) -> Tensor:
        """Run decoder layer `index`.

        Args:
            index: Layer, counted from 0.
            hidden: ``[1, rows, hidden]``.
            rotary: Cosines and sines of the rows.
            mask: ``[1, 1, rows, keys]``, boolean (True attends) or additive float. None is plain causal
                attention, which is right only for an empty cache or a single row.
            cache: Takes the rows' keys and values.

        Returns:
            ``[1, rows, hidden]``.

        Raises:
            ValueError: several rows on a filled cache without a mask; the result would be silently wrong.
        """
        if mask is None and cache is not None and hidden.shape[1] > 1 and cache.lengths[index]:
            raise ValueError("several rows on a filled cache need an explicit attention mask")
        keywords: dict[str, Any] = {self._cache_keyword: cache}
        output = self.layers[index](
            hidden, attention_mask=mask, position_embeddings=rotary, use_cache=cache is not None, **keywords
        )
        return output[0] if isinstance(output, tuple) else output

    def head(self, hidden: Tensor) -> Tensor:
        """Apply final norm and LM head to ``[1, rows, hidden]``; returns logits ``[1, rows, vocabulary]``."""
        return self.lm_head(self.norm(hidden))

    def states(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: StaticCache | None = None,
    ) -> Tensor:
        """Run embedding and all layers, without the head.

        Args:
            ids: ``[1, rows]`` int64.
            positions: ``[1, rows]`` int64.
            mask: As `layer` takes it, the same for all layers.
            cache: Takes the rows' keys and values.

        Returns:
            ``[1, rows, hidden]``, before the final norm.
        """
        hidden = self.embed(ids)
        rotary = self.rotary(hidden, positions)
        for index in range(self.num_layers):
            hidden = self.layer(index, hidden, rotary, mask, cache)
        return hidden

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: StaticCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Run embedding, all layers and head.

        Args:
            ids: ``[1, rows]`` int64.
            positions: ``[1, rows]`` int64.
            mask: As `layer` takes it, the same for all layers.
            cache: Takes the rows' keys and values.
            last_only: Compute logits for the last row only.

        Returns:
            Logits, ``[1, rows or 1, vocabulary]``.
        """
        hidden = self.states(ids, positions, mask, cache)
        return self.head(hidden[:, -1:] if last_only else hidden)
