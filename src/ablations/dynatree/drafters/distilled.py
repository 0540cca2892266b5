"""Drafting with a distilled draft, on the target's states of the text and on its own of drafted tokens."""

import torch
from torch import Tensor

from ablations.dynatree.distilling.fused import FusedDraft
from ablations.dynatree.distilling.model import DistilledDraft
from ablations.dynatree.distilling.states import normalised
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import tree_mask
from ablations.lm.layered import LayeredLM


class DistilledDrafter:
    """Drafts with one decoder layer on the target's last-layer states.

    The draft's row of a token joins the token with the state before it. The cache holds the rows of the text
    up to the root, computed from the target's states, then the rows of the tree's nodes, computed from the
    states predicted at their parents. At the end of a round the nodes' rows are dropped; the first forward of
    the next round computes the rows of accepted tokens from the target's states.

    Args:
        draft: The distilled draft.
        target: The target; its embeddings and final norm are used.
        capacity: Most rows of text and tree together.
        nodes: Most nodes of a tree below its root.
    """

    alone = False

    def __init__(self, draft: DistilledDraft, target: LayeredLM, capacity: int, nodes: int) -> None:
        self.forwards = 0
        self._draft = FusedDraft(draft, target.lm_head, capacity)
        self._target = target
        self._cache = self._draft.new_cache()
        hidden = target.config.hidden_size
        self._predicted = torch.zeros(nodes + 1, hidden, dtype=self._draft.dtype, device=target.device)
        # Cached rows of the text, and whether they include the root of this round.
        self._text_rows = 0
        self._has_root = False
        # Text tokens since the last forward, and the target's states before each of them and before the root.
        self._pending_tokens: Tensor
        self._pending_states: Tensor

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt and the target's states of it; see `Drafter.prefill`."""
        self.forwards = 0
        self._cache.truncate(0)
        ids = torch.tensor(prompt, device=states.device)
        states = normalised(self._target.norm, states)
        self._pending_tokens, self._pending_states = ids[:0], states[-1:]
        if len(ids) > 1:
            self._forward(states[:-1], ids[1:], torch.arange(len(ids) - 1, device=ids.device), None)
        self._text_rows = self._cache.lengths[0]
        self._has_root = False

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """One forward over the newest level; see `Drafter.propose`."""
        if level.start == 0:
            predicted = self._forward_root(tree)
        else:
            mask = tree_mask(tree.ancestors[level, 1:], self._text_rows, self._draft.dtype)
            positions = self._text_rows - 1 + tree.depths[level]
            states = self._predicted[tree.parents[level]]
            predicted = self._forward(states, tree.tokens[level], positions, mask)
        self._predicted[level] = predicted
        self.forwards += 1
        best = self._draft.head(predicted).float().softmax(dim=-1).topk(branching, dim=-1)
        return self._draft.tokens[best.indices], best.values.double()

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """Take the target's states of the accepted path; see `Drafter.commit`.

        If the round was drafted without this drafter, its root becomes pending with the accepted tokens.
        """
        self._cache.truncate(self._text_rows)
        states = normalised(self._target.norm, states)
        if self._has_root:
            self._pending_tokens, self._pending_states = tree.tokens[path[1:]].clone(), states
        else:
            self._pending_tokens = torch.cat([self._pending_tokens, tree.tokens[path]])
            self._pending_states = torch.cat([self._pending_states, states])
        self._has_root = False

    def _forward_root(self, tree: TokenTree) -> Tensor:
        tokens = torch.cat([self._pending_tokens, tree.tokens[:1]])
        start, rows = self._cache.lengths[0], len(tokens)
        causal = torch.ones(rows, rows, dtype=torch.bool, device=tokens.device).tril()
        mask = tree_mask(causal, start, self._draft.dtype) if rows > 1 else None
        positions = torch.arange(start, start + rows, device=tokens.device)
        self._text_rows = start + rows
        self._has_root = True
        return self._forward(self._pending_states, tokens, positions, mask)[-1:]

    def _forward(self, states: Tensor, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        return self._draft(states, self._target.embed(tokens[None])[0], positions, mask, self._cache)
