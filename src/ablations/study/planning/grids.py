"""The configurations that grids replay."""

from collections.abc import Iterable
from itertools import product

from ablations.study.config.dynatree import DynatreeBaseline, Grids
from ablations.study.contracts.dynatree import Pruning, Shape
from ablations.study.contracts.grid import GridTree

Swept = tuple[tuple[GridTree, ...], tuple[int, ...]]
"""Configurations, and the lengths to which each is replayed."""


def swept(grids: Grids, baseline: DynatreeBaseline) -> dict[str, Swept]:
    """The grid of trees (`trees`), and that of generated lengths (`lengths`)."""
    cap = min(grids.max_nodes, baseline.pruning.max_nodes)
    full = GridTree(shape=baseline.shape, pruning=Pruning(tau=baseline.pruning.tau, max_nodes=cap))
    trees = [
        GridTree(
            shape=Shape(depth=depth, branching=branching), pruning=Pruning(tau=tau, max_nodes=grids.max_nodes)
        )
        for depth, branching, tau in product(grids.depths, grids.branchings, grids.taus)
    ]
    return {
        "trees": ((*_lines(grids.linear, grids.max_nodes), *trees), (grids.new_tokens,)),
        "lengths": ((full, *_lines([baseline.shape.depth], cap)), grids.lengths),
    }


def largest_shape(grids: Grids, baseline: DynatreeBaseline) -> Shape:
    """Greatest depth and branching of all of them."""
    shapes = [tree.shape for trees, _ in swept(grids, baseline).values() for tree in trees]
    return Shape(
        depth=max(shape.depth for shape in shapes), branching=max(shape.branching for shape in shapes)
    )


def _lines(depths: Iterable[int], max_nodes: int) -> list[GridTree]:
    return [
        GridTree(
            shape=Shape(method="linear", depth=depth, branching=1),
            pruning=Pruning(tau=None, max_nodes=max_nodes),
        )
        for depth in depths
    ]
