"""Drafting with a distilled draft: it reads the target's states of what is text, and its own below."""

import torch
from torch import Tensor

from ablations.dynatree.distilling.fused import FusedDraft
from ablations.dynatree.distilling.model import DistilledDraft, normalised
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import tree_mask
from ablations.lm.layered import LayeredLM


class DistilledDrafter:
    """Drafts with one decoder layer on the states that the target's own forwards leave.

    The draft's row of a token joins it with the state before it. The cache holds the rows of the text up
    to the root, each on the target's state, then those of the tree's nodes, each on the state predicted
    at its parent. A round's end drops all of the nodes' rows: those of accepted tokens are made anew, on
    the states that the target had of them, in the next round's first forward.

    Args:
        draft: The distilled draft.
        target: Lends embeddings and the kind of its final norm.
        capacity: Most rows of text and tree together.
        nodes: Most nodes of a tree below its root.
    """

    def __init__(self, draft: DistilledDraft, target: LayeredLM, capacity: int, nodes: int) -> None:
        self.forwards = 0
        self._draft = FusedDraft(draft, target.lm_head, capacity)
        self._target = target
        self._cache = self._draft.new_cache()
        hidden = target.config.hidden_size
        self._predicted = torch.zeros(nodes + 1, hidden, dtype=self._draft.dtype, device=target.device)
        # Rows of the text, and whether the root of this round is among them.
        self._text = 0
        self._fed = False
        # Tokens that became text since the last forward, and the target's states before each and the root.
        self._waiting: Tensor
        self._states: Tensor

    def prefill(self, prompt: list[int], states: Tensor) -> None:
        """Read a prompt and the target's states of it; see `Drafter.prefill`."""
        self.forwards = 0
        self._cache.truncate(0)
        ids = torch.tensor(prompt, device=states.device)
        states = normalised(self._target.norm, states)
        self._waiting, self._states = ids[:0], states[-1:]
        if len(ids) > 1:
            self._forward(states[:-1], ids[1:], torch.arange(len(ids) - 1, device=ids.device), None)
        self._text = self._cache.lengths[0]
        self._fed = False

    def propose(self, tree: TokenTree, level: slice, branching: int) -> tuple[Tensor, Tensor]:
        """One forward over the newest level; see `Drafter.propose`."""
        if level.start == 0:
            predicted = self._forward_root(tree)
        else:
            mask = tree_mask(tree.ancestors[level, 1:], self._text, self._draft.dtype)
            positions = self._text - 1 + tree.depths[level]
            parents = self._predicted[tree.parents[level]]
            predicted = self._forward(parents, tree.tokens[level], positions, mask)
        self._predicted[level] = predicted
        self.forwards += 1
        best = self._draft.head(predicted).float().softmax(dim=-1).topk(branching, dim=-1)
        return self._draft.tokens[best.indices], best.values.double()

    def commit(self, tree: TokenTree, path: Tensor, states: Tensor) -> None:
        """Take over the target's states of the accepted path; see `Drafter.commit`.

        A round may have been drafted without this drafter: then its root waits with the accepted tokens.
        """
        self._cache.truncate(self._text)
        states = normalised(self._target.norm, states)
        if self._fed:
            self._waiting, self._states = tree.tokens[path[1:]].clone(), states
        else:
            self._waiting = torch.cat([self._waiting, tree.tokens[path]])
            self._states = torch.cat([self._states, states])
        self._fed = False

    def _forward_root(self, tree: TokenTree) -> Tensor:
        tokens = torch.cat([self._waiting, tree.tokens[:1]])
        start, rows = self._cache.lengths[0], len(tokens)
        causal = torch.ones(rows, rows, dtype=torch.bool, device=tokens.device).tril()
        mask = tree_mask(causal, start, self._draft.dtype) if rows > 1 else None
        positions = torch.arange(start, start + rows, device=tokens.device)
        self._text = start + rows
        self._fed = True
        return self._forward(self._states, tokens, positions, mask)[-1:]

    def _forward(self, states: Tensor, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        return self._draft(states, self._target.embed(tokens[None])[0], positions, mask, self._cache)
