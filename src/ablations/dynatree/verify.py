"""Verification of a token tree: one target forward, and the path that greedy decoding accepts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.tree import TokenTree
from ablations.lm.cache import StaticCache
from ablations.lm.finite import greedy_ids
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM


def tree_mask(ancestors: Tensor, prefix: int, dtype: torch.dtype) -> Tensor:
    """Attention mask of tree rows on a cache: a row attends to all rows before the tree and its ancestors.

    Args:
        ancestors: ``[rows, nodes]`` bool.
        prefix: Cached rows before the tree.
        dtype: Data type of the model.

    Returns:
        ``[1, 1, rows, prefix + nodes]``, 0 where a row attends and minus infinity elsewhere. A boolean mask
        would be converted to this form in every layer.
    """
    rows, nodes = ancestors.shape
    mask = torch.zeros(rows, prefix + nodes, dtype=dtype, device=ancestors.device)
    mask[:, prefix:].masked_fill_(~ancestors, float("-inf"))
    return mask[None, None]


@dataclass(frozen=True)
class Verification:
    """Result of verifying a tree.

    Attributes:
        path: ``[accepted + 1]`` int64 ascending, rows of the accepted path in the drafted tree, the root
            first.
        bonus: The target's token after the path; `NOT_FINITE` if its logits are not finite.
        tested: Levels at which an accepted node has drafted children: one more than the accepted levels if
            the last accepted node has children, else as many.
        states: ``[accepted + 1, hidden]``, the target's last-layer states of the path, before its final norm.
    """

    path: Tensor
    bonus: int
    tested: int
    states: Tensor


def verify(
    target: LayeredLM, tree: TokenTree, cache: StaticCache, clock: PhaseClock, rows: Tensor | None = None
) -> Verification:
    """Verify the tree in one target forward; the cache keeps root and accepted rows.

    A node is accepted if it is the target's most probable token after its parent, and its parent is
    accepted. Siblings are distinct tokens, so the accepted nodes form one path.

    Args:
        target: The target.
        tree: Root and drafted nodes; siblings share a position.
        cache: The target's cache of all tokens before the root; compacted in place.
        clock: Times the forward and its argmax as phase ``verify``.
        rows: Rows to verify, ``[rows]`` int64 ascending, each with its parent; None for all rows.
    """
    tokens, parents, depths, ancestors = subtree(tree, rows)
    prefix = cache.lengths[0]
    mask = tree_mask(ancestors, prefix, target.dtype) if len(tokens) > 1 else None
    positions = depths + prefix

    def forward() -> tuple[Tensor, Tensor]:
        states = last_states(target, tokens[None], positions[None], mask, cache)
        return states[0], greedy_ids(target.head(states))[0]

    states, greedy = clock.time("verify", forward)
    # The only read from the device in a round; the rest is arithmetic on a few integers.
    accepted = accepted_nodes(tokens, parents, ancestors, greedy)
    accepted, host_greedy, host_parents = torch.stack([accepted, greedy, parents]).cpu()
    path = accepted.nonzero()[:, 0]
    last = int(path[-1])
    if last + 1 == len(path):
        # The accepted rows are the first ones, so none has to be moved.
        cache.truncate(prefix + len(path))
    else:
        cache.keep(prefix, path)
    # The root is its own parent.
    has_children = bool((host_parents[1:] == last).any())
    return Verification(
        path=path if rows is None else rows[path],
        bonus=int(host_greedy[last]),
        tested=len(path) - 1 + has_children,
        states=states[path],
    )


def subtree(tree: TokenTree, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, parents, depths and ancestors of the given rows, renumbered from 0; None for the whole tree."""
    if rows is None:
        return tree.tokens, tree.parents, tree.depths, tree.ancestors
    parents = torch.searchsorted(rows, tree.parents[rows])
    return tree.tokens[rows], parents, tree.depths[rows], tree.ancestors[rows][:, rows]


def accepted_nodes(tokens: Tensor, parents: Tensor, ancestors: Tensor, greedy: Tensor) -> Tensor:
    """Nodes that, with all their ancestors, are the target's greedy token after their parent.

    Args:
        tokens: ``[nodes]`` int64, the root first.
        parents: ``[nodes]`` int64 rows.
        ancestors: ``[nodes, nodes]`` bool, as in `TokenTree`.
        greedy: ``[nodes]`` int64, the target's greedy token after each node.

    Returns:
        ``[nodes]`` bool, True for the root. Siblings are distinct tokens, so the nodes form one path.
    """
    agrees = tokens == greedy[parents]
    # Column 0 is left out: the root is every node's ancestor, and always accepted.
    return (agrees | ~ancestors)[:, 1:].all(dim=1)
