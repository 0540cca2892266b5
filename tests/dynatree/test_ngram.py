import math
from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.dynatree.drafters.ngram import NgramDrafter
from ablations.dynatree.drafters.ngram_counts import UNSEEN, Followers, NgramCounts, suffix_hashes
from ablations.dynatree.fit_ngram import count_ngrams
from ablations.dynatree.tree import TokenTree

CPU = torch.device("cpu")
VOCABULARY = 6
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


def reference_probability(documents, live, context, token, order, weight, max_followers):
    """Witten-Bell interpolation from dictionaries, written from its definition."""
    probability = 1 / VOCABULARY
    for length in range(min(order - 1, len(context)) + 1):
        suffix = tuple(context[len(context) - length :])

        def followers(texts, suffix=suffix, length=length):
            return Counter(
                text[i]
                for text in texts
                for i in range(length, len(text))
                if tuple(text[i - length : i]) == suffix
            )

        trained, lived = followers(documents), followers([live])
        listed = sorted(trained, key=lambda follower: (-trained[follower], follower))
        listed = set(listed if length == 0 else listed[:max_followers])
        total = sum(trained.values()) + weight * sum(lived.values())
        types = len(trained) + len(lived)
        if not types:
            break
        spare = types + sum(count for follower, count in trained.items() if follower not in listed)
        count = (trained[token] if token in listed else 0) + weight * lived[token]
        probability = (count + spare * probability) / (total + types)
    return probability


def distribution(drafter: NgramDrafter, tree: TokenTree, level: slice) -> list[dict[int, float]]:
    tokens, probabilities = drafter.propose(tree, level, VOCABULARY)
    return [
        dict(zip(row, values, strict=True))
        for row, values in zip(tokens.tolist(), probabilities.tolist(), strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(TOKENS, min_size=1, max_size=4),
    prompt=TOKENS,
    order=st.integers(1, 5),
    weight=st.sampled_from([0.0, 1.0, 4.0, 2.5]),
    max_followers=st.sampled_from([1, 2, 64]),
)
def test_probabilities_match_a_dictionary_reference_and_sum_to_one(
    documents, prompt, order, weight, max_followers
):
    counts = NgramCounts(count_ngrams(documents, order, VOCABULARY, max_followers), VOCABULARY)
    drafter = NgramDrafter(counts, weight, CPU)
    drafter.prefill(prompt[:-1])
    tree = TokenTree(2 * VOCABULARY, CPU)
    tree.plant(prompt[-1])
    (at_root,) = distribution(drafter, tree, slice(0, 1))
    children = torch.tensor([2, 4])
    level = tree.add_level(children, torch.tensor([0, 0]), torch.tensor([0.5, 0.5]))
    below = distribution(drafter, tree, level)
    for context, probabilities in zip([prompt, [*prompt, 2], [*prompt, 4]], [at_root, *below], strict=True):
        assert sorted(probabilities) == list(range(VOCABULARY))
        assert math.isclose(sum(probabilities.values()), 1.0, rel_tol=1e-9)
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
        for token, probability in probabilities.items():
            expected = reference_probability(
                documents, prompt, context, token, counts.order, weight, max_followers
            )
            assert math.isclose(probability, expected, rel_tol=1e-9)


@settings(max_examples=40, deadline=None)
@given(documents=st.lists(TOKENS, min_size=1, max_size=4), prompt=TOKENS, branching=st.integers(1, 4))
def test_the_most_probable_children_are_those_of_the_whole_distribution(documents, prompt, branching):
    counts = NgramCounts(count_ngrams(documents, 3, VOCABULARY), VOCABULARY)
    proposals = []
    for count in (branching, VOCABULARY):
        drafter = NgramDrafter(counts, 4.0, CPU)
        drafter.prefill(prompt[:-1])
        tree = TokenTree(1, CPU)
        tree.plant(prompt[-1])
        proposals.append(drafter.propose(tree, slice(0, 1), count)[1][0])
    # Tokens of equal probability may change places; the probabilities may not.
    torch.testing.assert_close(proposals[0], proposals[1][:branching], rtol=1e-12, atol=0)


def test_state_after_commit_is_that_of_reading_the_text_from_the_start():
    documents = [[0, 1, 2, 3, 0, 1, 2, 4], [5, 1, 2, 3]]
    counts = NgramCounts(count_ngrams(documents, 4, VOCABULARY), VOCABULARY)
    kept, fresh = NgramDrafter(counts, 4.0, CPU), NgramDrafter(counts, 4.0, CPU)
    kept.prefill([0, 1])
    tree = TokenTree(8, CPU)
    tree.plant(2)
    tokens, probabilities = kept.propose(tree, slice(0, 1), 2)
    level = tree.add_level(tokens[0], torch.tensor([0, 0]), probabilities[0])
    kept.propose(tree, level, 2)
    kept.commit(tree, torch.tensor([0, 2]))
    accepted = int(tree.tokens[2])
    tree.plant(1)
    fresh.prefill([0, 1, 2, accepted])
    assert distribution(kept, tree, slice(0, 1)) == distribution(fresh, tree, slice(0, 1))
    assert kept.forwards == 3


def test_no_ngram_reaches_across_documents():
    counts = NgramCounts(count_ngrams([[1, 2], [3, 1, 4]], 3, VOCABULARY), VOCABULARY)
    after_one, after_two_and_one = suffix_hashes([2, 1])
    assert counts.followers(1, after_one) == Followers([2, 4], [1, 1], total=2, types=2, spare=2)
    (after_two,) = suffix_hashes([2])
    assert counts.followers(1, after_two) == UNSEEN
    assert counts.followers(2, after_two_and_one) == UNSEEN
    _, after_three_and_one = suffix_hashes([3, 1])
    assert counts.followers(2, after_three_and_one).tokens == [4]
