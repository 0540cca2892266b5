from itertools import chain, combinations

import pytest

from ablations.sdtp.retrieval.wordings import WORDINGS

SPLITS = ("train", "validation", "heldout")


def phrases(split):
    """Everything that a wording of the split writes, of whatever kind."""
    wordings = [kinds[split] for kinds in WORDINGS.values()]
    forms = chain.from_iterable(one.forms for one in wordings)
    keys = chain.from_iterable(one.keys for one in wordings)
    written = chain.from_iterable((form.opening, form.heading, form.fact, form.cue) for form in forms)
    return {phrase.strip() for phrase in chain(written, keys)} - {""}


@pytest.mark.parametrize(("one", "other"), [*combinations(SPLITS, 2)])
def test_splits_share_no_wording_and_no_key(one, other):
    assert len(phrases(one)) > 15
    assert phrases(one) & phrases(other) == set()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", WORDINGS)
def test_a_cue_asks_for_the_key_and_does_not_say_the_value(kind, split):
    wordings = WORDINGS[kind][split]
    assert len(wordings.forms) >= 2
    assert len(set(wordings.keys)) == len(wordings.keys) >= wordings.facts
    for form in wordings.forms:
        assert "{key}" in form.cue
        assert "{key}" in form.fact
        assert "{value}" in form.fact
        assert form.fact.endswith("\n")
        assert "{value}" not in form.cue + form.opening + form.heading
        assert bool(form.opening) == (kind == "question_first")
    assert (wordings.facts > 1) == (kind == "pairs")
