"""A neural drafter: any causal LM that shares the target's vocabulary, one forward per tree level."""

import torch
from torch import Tensor

from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import tree_mask
from ablations.lm.graphs import cache_for, last_states
from ablations.lm.layered import LayeredLM


class NeuralDrafter:
    """Drafts with a causal LM whose KV cache is kept across rounds and compacted by index.

    The cache holds the committed text, then the tree's nodes in the tree's order. The draft does not run on
    leaves, so the first forward of a round includes an accepted leaf of the round before.

    Args:
        draft: The draft model.
        vocabulary: Size of the target's output. Draft logits beyond it (padding rows) are cut off; ids beyond
            the draft's own rows (padding rows of the target) are read as its last row.
        capacity: Most rows of text and tree together.
        nodes: Most nodes of a level.
    """

    alone = False

    def __init__(self, draft: LayeredLM, vocabulary: int, capacity: int, nodes: int) -> None:
        self.forwards = 0
        self._draft = draft
        self._vocabulary = vocabulary
        self._last_row = draft.embedding.num_embeddings - 1
        self._cache = cache_for(draft, capacity, nodes)
        self._committed = 0
        self._pending: Tensor

    def prefill(self, prompt: list[int], states: Tensor | None = None) -> None:
        """Read a prompt; see `Drafter.prefill`."""
        ids = torch.tensor([prompt], device=self._draft.device)
        self.forwards = 0
        self._cache.truncate(0)
        self._states(ids, torch.arange(ids.shape[1], device=ids.device)[None], None)
        self._committed = ids.shape[1]
        self._pending = ids.new_empty(0)

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """One forward over the newest level; see `Drafter.propose`."""
        if level.start == 0:
            states = self._forward_root(tree)
        else:
            mask = tree_mask(tree.ancestors[level], self._committed, self._draft.dtype)
            positions = self._committed + tree.depths[level]
            states = self._states(tree.tokens[None, level], positions[None], mask)
        self.forwards += 1
        logits = self._draft.head(states)[0, :, : self._vocabulary]
        best = logits.float().softmax(dim=-1).topk(branching, dim=-1)
        return best.indices, best.values.double()

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor | None = None) -> None:
        """Keep the rows of the accepted path; see `Drafter.commit`."""
        cached_nodes = self._cache.lengths[0] - self._committed
        kept = path[path < cached_nodes]
        self._cache.keep(self._committed, kept)
        self._committed += len(kept)
        self._pending = tree.tokens[path[len(kept) :]].clone()

    def _forward_root(self, tree: TokenTree) -> Tensor:
        ids = torch.cat([self._pending, tree.tokens[:1]])
        start, rows = self._committed, len(ids)
        positions = torch.arange(start, start + rows, device=ids.device)
        causal = torch.ones(rows, rows, dtype=torch.bool, device=ids.device).tril()
        mask = tree_mask(causal, start, self._draft.dtype) if rows > 1 else None
        states = self._states(ids[None], positions[None], mask)
        self._committed += rows - 1
        return states[:, -1:]

    def _states(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        if self._last_row + 1 < self._vocabulary:
            ids = ids.clamp(max=self._last_row)
        return last_states(self._draft, ids, positions, mask, self._cache)
