"""A prompt on its way through the layers: what is left of it, and what its next layer sees."""

from collections.abc import Callable

import torch
from torch import Tensor

from ablations.lm.cache import StaticCache
from ablations.lm.device import distinct_indices
from ablations.lm.layered import LayeredLM, Rotary
from ablations.sdtp.pruned.masks import attention_mask, keep_probabilities
from ablations.sdtp.pruned.pruning import Pruning

Scorer = Callable[[int, Tensor, Tensor], Tensor]
"""Takes a stage (from 0), candidates' states ``[rows, hidden]`` and their prompt indices ``[rows]`` (int64,
ascending); returns scores ``[rows]``, float."""


class Living:
    """A prompt between two layers, dropped tokens removed for good (propagation `cascade`, hard mask).

    Survivors stay in order, so plain causal attention without a mask is right at every layer. Row counts
    follow from lengths alone with top-k: on CUDA the host never waits.

    Attributes:
        hidden: ``[1, rows, hidden]``, what the next layer runs on.
        kept: ``[living]`` int64, ascending prompt indices of the living tokens.
        tokens: Tokens of the whole prompt.
        stages: Stages done.
        scored: Candidates of each stage done by this object.
        position_offsets: Of each layer that ran, the RoPE index of the next row less the rows that the layer
            has cached, the same for all rows to come: zero where the rows are numbered by their order
            (`packed`), else the number of prompt tokens that the layer did not see.

    Args:
        lm: Model.
        pruning: Where and how much to prune.
        tokens: Tokens of the whole prompt.
        hidden: States at the input of a layer, of the living tokens.
        kept: Their prompt indices.
        stages: Stages done before.
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
        """States ``[rows, hidden]`` and prompt indices ``[rows]`` of what the next stage chooses from."""
        return self.hidden[0], self.kept

    def keep(self, chosen: Tensor) -> None:
        """Keep these rows of the candidates, ascending, and no others."""
        # Several times faster on the CPU than indexing by a tensor.
        self.hidden = self.hidden.index_select(1, chosen)
        self.kept = self.kept.index_select(0, chosen)
        self._rotary = self._rotary_of(self.kept)

    def prune(self, scorer: Scorer) -> None:
        """Do the next stage: score the candidates, choose, and keep what was chosen."""
        states, indices = self.candidates()
        scores = scorer(self.stages, states, indices)
        count = self._counts[self.stages]
        self.keep(self.pruning.choose(self.stages, scores, count, self._protected))
        self.scored.append(scores.shape[0])
        self.stages += 1

    def layer(self, index: int, cache: StaticCache | None) -> None:
        """Run layer `index`; the cache takes its keys and values."""
        packed = self.pruning.positions == "packed"
        self.position_offsets[index] = 0 if packed else self.tokens - self.hidden.shape[1]
        self._run(index, cache)

    def state(self) -> Tensor:
        """State ``[hidden]`` of the last living token."""
        return self.hidden[0, -1]

    @property
    def weights(self) -> tuple[Tensor, ...] | None:
        """What the soft mask lets the prompt's tokens be seen with, per layer; None for a hard mask."""
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


class Local(Living):
    """Every stage chooses among all prompt tokens; a dropped one has the state it had when it was dropped.

    A token that comes back has skipped layers, which have no keys and values of it.
    """

    def __init__(
        self, lm: LayeredLM, pruning: Pruning, tokens: int, hidden: Tensor, kept: Tensor, stages: int = 0
    ) -> None:
        super().__init__(lm, pruning, tokens, hidden, kept, stages)
        self._states = hidden
        self._everything = kept

    def candidates(self) -> tuple[Tensor, Tensor]:
        """All prompt tokens."""
        with distinct_indices():
            self._states = self._states.index_copy(1, self.kept, self.hidden)
        return self._states[0], self._everything

    def keep(self, chosen: Tensor) -> None:
        """Keep these rows of the candidates."""
        self.hidden = self._states[:, chosen]
        self.kept = chosen
        self._rotary = self._rotary_of(chosen)


class StaleKeys(Living):
    """Dropped tokens' states are frozen but stay visible: later layers make keys and values from them.

    Every layer runs on all rows, and only the living ones are written back.
    """

    def candidates(self) -> tuple[Tensor, Tensor]:
        """The living tokens."""
        return self.hidden[0, self.kept], self.kept

    def keep(self, chosen: Tensor) -> None:
        """Keep these rows of the candidates."""
        self.kept = self.kept[chosen]

    def state(self) -> Tensor:
        """State ``[hidden]`` of the last living token."""
        return self.hidden[0, self.kept[-1:]][0]

    def _run(self, index: int, cache: StaticCache | None) -> None:
        output = self.lm.layer(index, self.hidden, self._full_rotary, None, cache)
        with distinct_indices():
            self.hidden = self.hidden.index_copy(1, self.kept, output[:, self.kept])


class Soft(Living):
    """Nothing is removed: attention weights every token by the product of its keep probabilities.

    They are the soft mask of training without its noise (`masks.sample_keep`); a token sees itself fully.
    `kept` stays the whole prompt; what hard pruning would have left is known to the stages alone.
    """

    def __init__(
        self, lm: LayeredLM, pruning: Pruning, tokens: int, hidden: Tensor, kept: Tensor, stages: int = 0
    ) -> None:
        super().__init__(lm, pruning, tokens, hidden, kept, stages)
        self._alive = kept
        self._visible = torch.ones(tokens, device=hidden.device)
        self._mask: Tensor | None = None
        self._weights: list[Tensor] = []

    def prune(self, scorer: Scorer) -> None:
        """Do the next stage: multiply what is visible by this stage's keep probabilities."""
        scores = scorer(self.stages, self.hidden[0], self.kept).float()
        head, tail = self._protected
        count = self._counts[self.stages]
        alive = self._alive[self.pruning.choose(self.stages, scores[self._alive], count, self._protected)]
        protected = (self.kept < head) | (self.kept >= self.tokens - tail)
        nobody = torch.zeros_like(protected)
        before, after = nobody.index_fill(0, self._alive, True), nobody.index_fill(0, alive, True)
        probabilities = keep_probabilities(
            scores, after & ~protected, before & ~after, self.pruning.temperature
        )
        self._visible = self._visible * torch.where(protected, 1.0, probabilities)
        self._alive = alive
        self._mask = attention_mask(self._visible[None], self.lm.dtype)
        self.scored.append(self.tokens)
        self.stages += 1

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """What the prompt's tokens are seen with, per layer ``[tokens]`` float32 from zero to one."""
        return tuple(self._weights)

    def _run(self, index: int, cache: StaticCache | None) -> None:
        self.hidden = self.lm.layer(index, self.hidden, self._full_rotary, self._mask, cache)
        self._weights.append(self._visible)


def begin(lm: LayeredLM, pruning: Pruning, ids: Tensor) -> Living:
    """A prompt at the input of layer 0.

    Args:
        lm: Model.
        pruning: Where and how much to prune.
        ids: ``[tokens]`` int64, on the model's device.
    """
    kinds = {"cascade": Living, "local": Local, "stale_keys": StaleKeys}
    kind = Soft if pruning.mask == "soft" else kinds[pruning.propagation]
    everything = torch.arange(ids.shape[0], device=ids.device)
    return kind(lm, pruning, ids.shape[0], lm.embed(ids[None]), everything)
