"""A prompt between two layers of a pruned prefill, in the variants of propagation and mask."""

from collections.abc import Callable

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.device import distinct_indices
from ablations.lm.layered import LayeredLM, Rotary
from ablations.sdtp.pruned.masks import attention_mask, keep_probabilities
from ablations.sdtp.pruned.pruning import Pruning

Scorer = Callable[[int, Tensor, Tensor], Tensor]
"""Takes a stage (from 0), the candidates' states ``[rows, hidden]`` and their ascending prompt indices
``[rows]`` (int64); returns scores ``[rows]``, float."""


class LivingPrompt:
    """A prompt between two layers; dropped tokens are removed (propagation `cascade`, hard mask).

    Survivors stay in order, so plain causal attention without a mask is right at every layer. With top-k, row
    counts follow from lengths alone, so on CUDA the host never waits.

    Attributes:
        hidden: ``[1, rows, hidden]``, input of the next layer.
        kept: ``[living]`` int64, ascending prompt indices of the living tokens.
        tokens: Tokens of the whole prompt.
        stages: Number of stages that have run.
        scored: Candidates of each stage that this object ran.
        position_offsets: For each layer that ran, the RoPE index of the next row minus the layer's cached
            rows. It is the same for all later rows: zero with `packed` positions, otherwise the number of
            prompt tokens that the layer did not see.

    Args:
        lm: Model.
        pruning: Where and how much to prune.
        tokens: Tokens of the whole prompt.
        hidden: ``[1, living, hidden]``, states of the living tokens at the input of a layer.
        kept: ``[living]`` int64, prompt indices of the living tokens.
        stages: Stages that have run before.
    """

    def __init__(
        self, lm: LayeredLM, pruning: Pruning, tokens: int, hidden: Tensor, kept: Tensor, stages: int = 0
    ) -> None:
        self.lm = lm
        self.pruning = pruning
        self.tokens = tokens
        self.hidden = hidden
        self.kept = kept
        self.stages = stages
        self.scored: list[int] = []
        self.position_offsets: dict[int, int] = {}
        self._counts = pruning.counts(tokens)
        self._protected = pruning.preserve.of(tokens)
        self._full_rotary = lm.rotary(hidden, torch.arange(tokens, device=hidden.device)[None])
        self._rotary = self._rotary_of(kept) if stages else self._full_rotary

    def candidates(self) -> tuple[Tensor, Tensor]:
        """States ``[rows, hidden]`` and prompt indices ``[rows]`` of the next stage's candidates."""
        return self.hidden[0], self.kept

    def keep(self, rows: Tensor) -> None:
        """Keep these candidates, ``[rows]`` int64 ascending, and drop all others."""
        # On the CPU index_select is several times faster than indexing by a tensor.
        self.hidden = self.hidden.index_select(1, rows)
        self.kept = self.kept.index_select(0, rows)
        self._rotary = self._rotary_of(self.kept)

    def prune(self, scorer: Scorer) -> None:
        """Run the next stage: score the candidates, and keep those that the selection rule chooses."""
        states, indices = self.candidates()
        scores = scorer(self.stages, states, indices)
        count = self._counts[self.stages]
        self.keep(self.pruning.choose(self.stages, scores, count, self._protected))
        self.scored.append(scores.shape[0])
        self.stages += 1

    def layer(self, index: int, cache: StaticCache | None) -> None:
        """Run layer `index`; its keys and values go into the cache."""
        packed = self.pruning.positions == "packed"
        self.position_offsets[index] = 0 if packed else self.tokens - self.hidden.shape[1]
        self._run(index, cache)

    def state(self) -> Tensor:
        """State ``[hidden]`` of the last living token."""
        return self.hidden[0, -1]

    @property
    def weights(self) -> tuple[Tensor, ...] | None:
        """Attention weights of the prompt's tokens under the soft mask, per layer; None for a hard mask."""
        return None

    def _run(self, index: int, cache: StaticCache | None) -> None:
        self.hidden = self.lm.layer(index, self.hidden, self._rotary, None, cache)

    def _rotary_of(self, indices: Tensor) -> Rotary:
        if self.pruning.positions == "stale":
            return self._full_rotary
        cosines, sines = self._full_rotary
        if self.pruning.positions == "packed":
            return cosines[:, : indices.shape[0]], sines[:, : indices.shape[0]]
        return cosines.index_select(1, indices), sines.index_select(1, indices)


class LocalPrompt(LivingPrompt):
    """Every stage chooses among all prompt tokens; a dropped token keeps the state it had when dropped.

    A token that is kept again has no keys and values in the layers that it skipped.
    """

    def __init__(
        self, lm: LayeredLM, pruning: Pruning, tokens: int, hidden: Tensor, kept: Tensor, stages: int = 0
    ) -> None:
        super().__init__(lm, pruning, tokens, hidden, kept, stages)
        self._states = hidden
        self._all_indices = kept

    def candidates(self) -> tuple[Tensor, Tensor]:
        """All prompt tokens."""
        with distinct_indices():
            self._states = self._states.index_copy(1, self.kept, self.hidden)
        return self._states[0], self._all_indices

    def keep(self, rows: Tensor) -> None:
        """Keep these candidates."""
        self.hidden = self._states[:, rows]
        self.kept = rows
        self._rotary = self._rotary_of(rows)


class StaleKeysPrompt(LivingPrompt):
    """Dropped tokens' states are frozen but stay visible: later layers compute keys and values from them.

    Every layer runs on all rows, and only the rows of living tokens are updated.
    """

    def candidates(self) -> tuple[Tensor, Tensor]:
        """The living tokens."""
        return self.hidden[0, self.kept], self.kept

    def keep(self, rows: Tensor) -> None:
        """Keep these candidates."""
        self.kept = self.kept[rows]

    def state(self) -> Tensor:
        """State ``[hidden]`` of the last living token."""
        return self.hidden[0, self.kept[-1:]][0]

    def _run(self, index: int, cache: StaticCache | None) -> None:
        output = self.lm.layer(index, self.hidden, self._full_rotary, None, cache)
        with distinct_indices():
            self.hidden = self.hidden.index_copy(1, self.kept, output[:, self.kept])


class SoftMaskPrompt(LivingPrompt):
    """Nothing is removed: attention weights every token by the product of its keep probabilities.

    Keep probabilities are the soft mask of training without noise (`masks.sample_keep`); a token attends to
    itself with weight one. `kept` stays the whole prompt. The stages track the survivors of hard pruning, by
    which the thresholds of the probabilities are set.
    """

    def __init__(
        self, lm: LayeredLM, pruning: Pruning, tokens: int, hidden: Tensor, kept: Tensor, stages: int = 0
    ) -> None:
        super().__init__(lm, pruning, tokens, hidden, kept, stages)
        self._alive = kept
        self._visibility = torch.ones(tokens, device=hidden.device)
        self._mask: Tensor | None = None
        self._weights: list[Tensor] = []

    def prune(self, scorer: Scorer) -> None:
        """Run the next stage: multiply the tokens' visibility by the stage's keep probabilities."""
        scores = scorer(self.stages, self.hidden[0], self.kept).float()
        head, tail = self._protected
        count = self._counts[self.stages]
        alive = self._alive[self.pruning.choose(self.stages, scores[self._alive], count, self._protected)]
        protected = (self.kept < head) | (self.kept >= self.tokens - tail)
        none = torch.zeros_like(protected)
        before, after = none.index_fill(0, self._alive, True), none.index_fill(0, alive, True)
        probabilities = keep_probabilities(
            scores, after & ~protected, before & ~after, self.pruning.temperature
        )
        self._visibility = self._visibility * torch.where(protected, 1.0, probabilities)
        self._alive = alive
        self._mask = attention_mask(self._visibility[None], self.lm.dtype)
        self.scored.append(self.tokens)
        self.stages += 1

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Attention weights of the prompt's tokens, per layer ``[tokens]`` float32 from zero to one."""
        return tuple(self._weights)

    def _run(self, index: int, cache: StaticCache | None) -> None:
        self.hidden = self.lm.layer(index, self.hidden, self._full_rotary, self._mask, cache)
        self._weights.append(self._visibility)


def embed_prompt(lm: LayeredLM, pruning: Pruning, ids: Tensor) -> LivingPrompt:
    """Embed a prompt; returns it at the input of layer 0.

    Args:
        lm: Model.
        pruning: Where and how much to prune.
        ids: ``[tokens]`` int64, on the model's device.
    """
    variants = {"cascade": LivingPrompt, "local": LocalPrompt, "stale_keys": StaleKeysPrompt}
    variant = SoftMaskPrompt if pruning.mask == "soft" else variants[pruning.propagation]
    indices = torch.arange(ids.shape[0], device=ids.device)
    return variant(lm, pruning, ids.shape[0], lm.embed(ids[None]), indices)
