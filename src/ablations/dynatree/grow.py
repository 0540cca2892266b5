"""Growing a token tree level by level, pruned by path probability."""

from ablations.dynatree.drafter import Drafter
from ablations.dynatree.tree import TokenTree


def grow(tree: TokenTree, drafter: Drafter, depth: int, branching: int, tau: float | None) -> None:
    """Add up to `depth` levels below the root, `branching` children per node.

    A child whose path probability (the product of the draft's probabilities from the root) falls
    under `tau` is dropped, and so is everything below it. Where a level does not fit into the tree,
    its nodes of highest path probability go first.

    Args:
        tree: A planted tree.
        drafter: Asked once per level.
        depth: Most levels.
        branching: Children per node.
        tau: Threshold on the path probability; None prunes nothing.
    """
    level = slice(0, 1)
    for _ in range(depth):
        if not tree.room:
            return
        tokens, probabilities = drafter.propose(tree, level, branching)
        paths = (probabilities * tree.probabilities[level, None]).flatten()
        chosen = (paths >= (tau or 0.0)).nonzero()[:, 0]
        if len(chosen) > tree.room:
            best = paths[chosen].sort(descending=True, stable=True).indices[: tree.room]
            chosen = chosen[best.sort().values]
        if not len(chosen):
            return
        level = tree.add_level(tokens.flatten()[chosen], level.start + chosen // branching, paths[chosen])
