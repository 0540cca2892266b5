"""The configurations that grids replay."""

from collections.abc import Iterable
from itertools import product

from ablations.study.config.dynatree import DynatreeBaseline, Grids
from ablations.study.contracts.dynatree import Pruning, Shape, tree_nodes
from ablations.study.contracts.grid import GridTree

Swept = tuple[tuple[GridTree, ...], tuple[int, ...]]
"""Configurations, and the lengths to which each is replayed."""


def swept(grids: Grids, baseline: DynatreeBaseline) -> dict[str, Swept]:
    """The grid of trees (`trees`), and that of generated lengths (`lengths`)."""
    full = GridTree(shape=baseline.shape, pruning=baseline.pruning)
    trees = [
        GridTree(
            shape=Shape(depth=depth, branching=branching), pruning=Pruning(tau=tau, max_nodes=grids.max_nodes)
        )
        for depth, branching, tau in product(grids.depths, grids.branchings, grids.taus)
    ]
    return {
        "trees": ((*_lines(grids.linear, grids.max_nodes), *trees), (grids.new_tokens,)),
        "lengths": ((full, *_lines([baseline.shape.depth], baseline.pruning.max_nodes)), grids.lengths),
    }


def largest(grids: Grids, baseline: DynatreeBaseline) -> tuple[Shape, int]:
    """Greatest depth and branching of all of them, and the most nodes that any of them can have."""
    trees = [tree for trees, _ in swept(grids, baseline).values() for tree in trees]
    shape = Shape(
        depth=max(tree.shape.depth for tree in trees), branching=max(tree.shape.branching for tree in trees)
    )
    nodes = (tree_nodes(tree.shape.depth, tree.shape.branching, tree.pruning.max_nodes) for tree in trees)
    return shape, max(nodes)


def _lines(depths: Iterable[int], max_nodes: int) -> list[GridTree]:
    return [
        GridTree(
            shape=Shape(method="linear", depth=depth, branching=1),
            pruning=Pruning(tau=None, max_nodes=max_nodes),
        )
        for depth in depths
    ]
