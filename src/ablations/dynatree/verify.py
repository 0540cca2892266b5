"""One target forward over a whole token tree, and the longest path that greedy decoding agrees with."""

import torch
from torch import Tensor

from ablations.dynatree.tree import TokenTree
from ablations.lm.cache import StaticCache
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


def verify(target: LayeredLM, tree: TokenTree, cache: StaticCache) -> tuple[Tensor, int]:
    """Check the tree in one target forward; leave root and accepted rows in the cache.

    A node is accepted if it is the target's most probable token after its parent, and its parent is
    accepted. Siblings are distinct tokens, so the accepted nodes are one path.

    Args:
        target: The model that decides.
        tree: Root and drafted nodes; siblings share a position.
        cache: The target's cache of everything before the root; compacted in place.

    Returns:
        Rows of the accepted path, ``[accepted + 1]`` int64 ascending and starting with the root, and
        the bonus token: the target's own next token after the path.
    """
    prefix = cache.lengths[0]
    mask = tree_mask(tree.ancestors, prefix, target.dtype) if tree.size > 1 else None
    logits = target.forward(tree.tokens[None], prefix + tree.depths[None], mask, cache)
    decided = logits[0].argmax(dim=-1)
    path = accepted_path(tree, decided)
    last = int(path[-1])
    if last + 1 == len(path):
        # First siblings all the way: the rows lie where they belong.
        cache.truncate(prefix + len(path))
    else:
        cache.keep(prefix, path)
    return path, int(decided[last])


def accepted_path(tree: TokenTree, decided: Tensor) -> Tensor:
    """Longest path on which every node is what the target decided after its parent.

    Args:
        tree: The drafted tree.
        decided: ``[size]`` int64, the target's greedy token after each node.

    Returns:
        ``[accepted + 1]`` int64 rows, ascending, the root first.
    """
    agrees = tree.tokens == decided[tree.parents]
    agrees[0] = True
    return (agrees | ~tree.ancestors).all(dim=1).nonzero()[:, 0]
