"""Synthetic grids of replayed drafts."""

from collections.abc import Iterable
from itertools import product

from ablations.specs.dynatree.arm import NgramDraftSpec, Shape, TreePruning
from ablations.specs.dynatree.grid import Grid, GridPoint, GridSample, GridSpec, GridTree
from ablations.specs.dynatree.prompts import PromptSet
from ablations.specs.lm import Compute
from tests.paper.synthetic_common import digests, environment, rng

DEPTHS, BRANCHINGS, TAUS, LENGTHS = (2, 3, 5, 7), (1, 2, 3), (0.01, 0.05, 0.2), (64, 128, 256)


def tree_grid() -> Grid:
    """Lines of 2 to 8 tokens, and trees of many shapes, to 128 tokens."""
    trees = [
        GridTree(shape=Shape(depth=depth, branching=branching), pruning=TreePruning(tau=tau))
        for depth, branching, tau in product(DEPTHS, BRANCHINGS, TAUS)
    ]
    return _grid("trees", [*map(_line, range(2, 9)), *trees], (128,))


def length_grid() -> Grid:
    """The full method's tree and a line of its depth, to several lengths."""
    return _grid("lengths", [GridTree(shape=Shape(), pruning=TreePruning()), _line(7)], LENGTHS)


def _line(depth: int) -> GridTree:
    return GridTree(
        shape=Shape(method="linear", depth=depth, branching=1), pruning=TreePruning(tau=None, max_nodes=128)
    )


def _grid(name: str, trees: Iterable[GridTree], lengths: tuple[int, ...]) -> Grid:
    prompts = tuple(
        PromptSet(kind=kind, text=kind, split="heldout", count=4, tokens=None) for kind in ("code", "docs")
    )
    trees = tuple(trees)
    return Grid(
        spec=GridSpec(
            drafter=NgramDraftSpec(context_weight=4.0),
            trees=trees,
            lengths=lengths,
            prompts=prompts,
            new_tokens=lengths[-1],
            compute=Compute(),
        ),
        points=tuple(
            GridPoint(tree=tree, tokens=tokens, samples=_samples(f"{name} {tree} {tokens}", tree, tokens))
            for tree, tokens in product(trees, lengths)
        ),
        environment=environment(),
        digests=digests(name),
    )


def _samples(name: str, tree: GridTree, tokens: int) -> tuple[GridSample, ...]:
    own, shape = rng(name), tree.shape
    nodes = shape.depth * shape.branching * (0.3 if tree.pruning.tau else 1) ** (shape.branching > 1)
    samples = []
    for index in range(8):
        rounds = int((tokens - 1) / (1.4 + 0.1 * shape.depth + tokens / 500 + own.uniform(0, 0.2)))
        drafted = int(rounds * nodes)
        samples.append(
            GridSample(
                document=f"prompt-{index // 2}",
                kind=("code", "docs")[index % 2],
                # The last prompt of each kind ends after its first token.
                new_tokens=tokens if index < 6 else 1,
                repeated_4grams=tokens / 1000 + own.uniform(0, 0.05) if index < 6 else 0.0,
                rounds=rounds if index < 6 else 0,
                accepted=tokens - 1 - rounds if index < 6 else 0,
                drafted=drafted if index < 6 else 0,
                seconds=rounds * 0.04 + drafted * 0.002 if index < 6 else 0.0,
                reference_seconds=(tokens - 1) * 0.04 if index < 6 else 0.0,
            )
        )
    return tuple(samples)
