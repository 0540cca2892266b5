import pytest
import torch
from pydantic import ValidationError

from ablations.dynatree.drafters.lookup import PromptLookupDrafter
from ablations.dynatree.tree import TokenTree
from ablations.specs.dynatree.arm import PromptLookup

CPU = torch.device("cpu")


def proposals(drafter: PromptLookupDrafter, tree: TokenTree, level: slice, branching: int = 2):
    tokens, probabilities = drafter.propose(tree, level, branching)
    return [
        [(token, round(probability, 6)) for token, probability in zip(*row, strict=True) if probability]
        for row in zip(tokens.tolist(), probabilities.tolist(), strict=True)
    ]


def planted(text: list[int], **settings) -> tuple[PromptLookupDrafter, TokenTree]:
    """A drafter that has read all but the last token, which is the root."""
    drafter = PromptLookupDrafter(PromptLookup(**settings), CPU)
    drafter.prefill(text[:-1])
    tree = TokenTree(16, CPU)
    tree.plant(text[-1])
    return drafter, tree


def test_the_longest_match_goes_first_then_later_occurrences():
    # After "1 2" came 3; after "2" alone came 5 last, then 4 and 3 before it.
    text = [9, 2, 4, 1, 2, 3, 8, 2, 5, 1, 2]
    drafter, tree = planted(text, probability=0.6)
    assert proposals(drafter, tree, slice(0, 1), 3) == [[(3, 0.6), (5, 0.24), (4, 0.096)]]


def test_without_a_match_nothing_is_proposed():
    drafter, tree = planted([1, 2, 3])
    assert proposals(drafter, tree, slice(0, 1)) == [[]]
    drafter, tree = planted([1, 2, 7, 2], shortest=2)
    assert proposals(drafter, tree, slice(0, 1)) == [[]]


def test_paths_are_part_of_what_is_matched_and_text_only_once_committed():
    drafter, tree = planted([1, 2, 3, 4, 1, 2], probability=0.5)
    assert proposals(drafter, tree, slice(0, 1)) == [[(3, 0.5)]]
    level = tree.add_level(torch.tensor([3, 4]), torch.tensor([0, 0]), torch.tensor([0.5, 0.25]))
    assert proposals(drafter, tree, level) == [[(4, 0.5)], [(1, 0.5)]]
    drafter.commit(tree, torch.tensor([0, 1]))
    tree.plant(5)
    assert proposals(drafter, tree, slice(0, 1)) == [[]]
    level = tree.add_level(torch.tensor([3]), torch.tensor([0]), torch.tensor([0.5]))
    # The text ends in "... 1 2 3 5": what followed 3 last is 5.
    assert proposals(drafter, tree, level) == [[(5, 0.5), (4, 0.25)]]
    assert drafter.forwards == 4


def test_a_prompt_forgets_the_one_before():
    drafter, tree = planted([1, 2, 3, 1])
    assert proposals(drafter, tree, slice(0, 1)) != [[]]
    drafter.prefill([4, 5])
    tree.plant(1)
    assert proposals(drafter, tree, slice(0, 1)) == [[]]
    assert drafter.forwards == 1


def test_lengths_must_be_ordered():
    with pytest.raises(ValidationError, match="'shortest' must be at most 'longest'"):
        PromptLookup(longest=2, shortest=3)
