"""One target forward over a whole token tree, and the longest path that greedy decoding agrees with."""

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
    """Attention mask of tree rows on a cache: everything before the tree, and one's own ancestors.

    Args:
        ancestors: ``[rows, nodes]`` bool.
        prefix: Cached rows before the tree.
        dtype: Data type of the model.

    Returns:
        ``[1, 1, rows, prefix + nodes]``, 0 where a row attends and minus infinity elsewhere; a boolean
        mask would be turned into this one again in every layer.
    """
    rows, nodes = ancestors.shape
    mask = torch.zeros(rows, prefix + nodes, dtype=dtype, device=ancestors.device)
    mask[:, prefix:].masked_fill_(~ancestors, float("-inf"))
    return mask[None, None]


@dataclass(frozen=True)
class Verdict:
    """What the target says to a tree.

    Attributes:
        path: Rows of the accepted path in the drafted tree, ``[accepted + 1]`` int64 ascending, the root
            first.
        bonus: The target's own next token after the path; `NOT_FINITE` where its logits are not.
        tested: Levels at which the target chose among children of an accepted node: one more than
            accepted where it chose none of them, as many where there were none.
        states: ``[accepted + 1, hidden]``, the target's last-layer states of the path, before its final norm.
    """

    path: Tensor
    bonus: int
    tested: int
    states: Tensor


def verify(
    target: LayeredLM, tree: TokenTree, cache: StaticCache, clock: PhaseClock, rows: Tensor | None = None
) -> Verdict:
    """Check the tree in one target forward; leave root and accepted rows in the cache.

    A node is accepted if it is the target's most probable token after its parent, and its parent is
    accepted. Siblings are distinct tokens, so the accepted nodes are one path.

    Args:
        target: The model that decides.
        tree: Root and drafted nodes; siblings share a position.
        cache: The target's cache of everything before the root; compacted in place.
        clock: Counts the forward and its argmax to phase ``verify``.
        rows: Rows to check, ``[rows]`` int64 ascending, each with its parent; None for all.
    """
    tokens, parents, depths, ancestors = verified_part(tree, rows)
    prefix = cache.lengths[0]
    mask = tree_mask(ancestors, prefix, target.dtype) if len(tokens) > 1 else None
    positions = depths + prefix

    def judge() -> tuple[Tensor, Tensor]:
        states = last_states(target, tokens[None], positions[None], mask, cache)
        return states[0], greedy_ids(target.head(states))[0]

    states, decided = clock.time("verify", judge)
    # One read from the device a round: what follows is arithmetic on a few integers.
    accepted, said, above = torch.stack([agreed(tokens, parents, ancestors, decided), decided, parents]).cpu()
    path = accepted.nonzero()[:, 0]
    last = int(path[-1])
    if last + 1 == len(path):
        # First siblings all the way: the rows lie where they belong.
        cache.truncate(prefix + len(path))
    else:
        cache.keep(prefix, path)
    # The root is its own parent.
    has_children = bool((above[1:] == last).any())
    return Verdict(
        path=path if rows is None else rows[path],
        bonus=int(said[last]),
        tested=len(path) - 1 + has_children,
        states=states[path],
    )


def verified_part(tree: TokenTree, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, parents, depths and ancestors of the rows alone, numbered anew; None is the whole tree."""
    if rows is None:
        return tree.tokens, tree.parents, tree.depths, tree.ancestors
    parents = torch.searchsorted(rows, tree.parents[rows])
    return tree.tokens[rows], parents, tree.depths[rows], tree.ancestors[rows][:, rows]


def agreed(tokens: Tensor, parents: Tensor, ancestors: Tensor, decided: Tensor) -> Tensor:
    """Which nodes are what the target decided after their parents, all the way from the root.

    Args:
        tokens: ``[nodes]`` int64, the root first.
        parents: ``[nodes]`` int64 rows.
        ancestors: ``[nodes, nodes]`` bool, as `TokenTree` has them.
        decided: ``[nodes]`` int64, the target's greedy token after each node.

    Returns:
        ``[nodes]`` bool, True for the root. Siblings are distinct tokens, so the nodes are one path.
    """
    agrees = tokens == decided[parents]
    # Everything descends from the root, which needs no agreement.
    return (agrees | ~ancestors)[:, 1:].all(dim=1)
