import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import accepted_nodes, tree_mask

CPU = torch.device("cpu")


@st.composite
def levels(draw) -> list[list[int]]:
    """Parents of each level, as positions within the level before."""
    width, parents_by_level = 1, []
    for _ in range(draw(st.integers(0, 5))):
        parents = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=5))
        parents_by_level.append(sorted(parents))
        width = len(parents)
    return parents_by_level


def planted(parents_by_level: list[list[int]], room: int = 30) -> TokenTree:
    tree = TokenTree(room, CPU)
    tree.plant(7)
    level = slice(0, 1)
    for number, parents in enumerate(parents_by_level):
        rows = torch.tensor(parents) + level.start
        # Siblings are distinct tokens.
        tokens = torch.arange(len(parents)) + 10 * number
        level = tree.add_level(tokens, rows, tree.probabilities[rows] * 0.5)
    return tree


def lineage(tree: TokenTree, node: int) -> list[int]:
    path = [node]
    while path[-1]:
        path.append(int(tree.parents[path[-1]]))
    return path


@settings(max_examples=60, deadline=None)
@given(levels())
def test_ancestor_mask_and_depths_match_a_walk_to_the_root(parents_by_level):
    tree = planted(parents_by_level)
    for node in range(tree.size):
        expected = lineage(tree, node)
        assert tree.ancestors[node].nonzero()[:, 0].tolist() == sorted(expected)
        assert int(tree.depths[node]) == len(expected) - 1
        assert float(tree.probabilities[node]) == 0.5 ** (len(expected) - 1)


@settings(max_examples=60, deadline=None)
@given(levels(), st.integers(0, 10_000))
def test_accepted_nodes_match_a_walk_from_the_root(parents_by_level, seed):
    tree = planted(parents_by_level)
    generator = torch.Generator().manual_seed(seed)
    greedy = tree.tokens[torch.randint(0, tree.size, (tree.size,), generator=generator)]
    expected = [0]
    while True:
        children = [
            node
            for node in range(1, tree.size)
            if tree.parents[node] == expected[-1] and tree.tokens[node] == greedy[expected[-1]]
        ]
        if not children:
            break
        expected += children
    accepted = accepted_nodes(tree.tokens, tree.parents, tree.ancestors, greedy).nonzero()[:, 0]
    assert accepted.tolist() == expected


def test_planting_again_forgets_the_last_round():
    tree = planted([[0, 0], [0, 1]])
    tree.plant(3)
    assert tree.size == 1
    tree.add_level(torch.tensor([5]), torch.tensor([0]), torch.tensor([0.25]))
    assert tree.ancestors.tolist() == [[True, False], [True, True]]
    assert tree.tokens.tolist() == [3, 5]


def test_tree_mask_shows_the_whole_prefix():
    tree = planted([[0, 0]])
    mask = tree_mask(tree.ancestors, 4, torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert set(mask.unique().tolist()) == {0.0, float("-inf")}
    mask = mask == 0
    assert mask.shape == (1, 1, 3, 7)
    assert mask[0, 0, :, :4].all()
    assert mask[0, 0, :, 4:].tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_a_full_tree_takes_no_more():
    tree = TokenTree(1, CPU)
    tree.plant(0)
    with pytest.raises(ValueError, match="cannot hold 2"):
        tree.add_level(torch.tensor([1, 2]), torch.tensor([0, 0]), torch.ones(2))
