"""Costs of decoding between and beyond what was measured, and prices that follow from them."""

import numpy as np
import pytest

from ablations.specs.dynatree.costs import Costs, Line, TargetCosts, level_kind, nearest
from ablations.specs.dynatree.replay import Replay

TARGET = TargetCosts(
    rows=(1, 3, 7),
    prefixes=(10, 30),
    verify=((1.0, 2.0, 6.0), (3.0, 6.0, 8.0)),
    prompt_tokens=(10, 20, 40),
    prefill=(1.0, 2.0, 6.0),
)
COSTS = Costs(
    target=TARGET,
    levels={
        "root": Line(base=1.0, unit=0.1),
        "first": Line(base=2.0, unit=0.2),
        "deep": Line(base=3.0, unit=0.3),
        "alone_root": Line(base=0.1, unit=0.01),
        "alone_deep": Line(base=0.2, unit=0.02),
    },
    commit=Line(base=0.01, unit=0.001),
    prefill=Line(base=0.5, unit=0.1),
    bookkeeping={
        "fixed": Line(base=0.02, unit=0.002),
        "dynamic": Line(base=0.03, unit=0.004),
        "cost_aware": Line(base=0.05, unit=0.006),
    },
    stated=(0.0, 1.0),
    accepted=(0.0, 1.0),
    child=0.5,
    rate=1.0,
)


def replay(**rounds) -> Replay:
    """A prompt of 10 tokens; each round adds its accepted tokens and one."""
    accepted = rounds["accepted_per_round"]
    return Replay(
        document="p0",
        kind="code",
        prompt_tokens=10,
        new_tokens=1 + sum(accepted) + len(accepted),
        repeated_4grams=0.0,
        target_forwards=len(accepted),
        draft_forwards=sum(map(len, rounds["levels_per_round"])),
        drafted=sum(rounds["drafted_per_round"]),
        accepted=sum(accepted),
        **rounds,
    )


@pytest.mark.parametrize(
    ("rows", "prefix", "seconds"),
    [
        (3, 10, 2.0),
        (7, 30, 8.0),
        (2, 10, 1.5),
        (5, 30, 7.0),
        (3, 20, 4.0),
        (5, 15, 4.0 + 0.25 * 3.0),
        # A row more than 7 adds 1 after 10 tokens, 1/2 after 30.
        (9, 10, 8.0),
        (9, 30, 9.0),
        (9, 20, 8.5),
        # After 30 tokens the lines go on; before 10 they end.
        (1, 50, 5.0),
        (1, 5, 1.0),
        (9, 40, 9.5),
    ],
)
def test_a_forward_between_and_beyond_measured_ones_follows_straight_lines(rows, prefix, seconds):
    assert float(TARGET.verify_seconds(rows, prefix)) == pytest.approx(seconds)


def test_a_longer_prefix_that_seems_cheaper_beyond_the_measured_rows_never_costs_less_than_nothing():
    noisy = TARGET.model_copy(update={"verify": ((1.0, 2.0, 6.0), (3.0, 6.0, 6.0))})
    # 8 rows more than 7 add 8 after 10 tokens and nothing after 30.
    assert list(noisy.verify_seconds(15, [10, 20, 30, 100])) == pytest.approx([14.0, 10.0, 6.0, 6.0])


def test_forwards_are_priced_together_as_one_by_one():
    rows, prefixes = np.array([[1], [4], [9]]), np.array([5, 10, 24, 60])
    together = TARGET.verify_seconds(rows, prefixes)
    alone = [[float(TARGET.verify_seconds(count, prefix)) for prefix in prefixes] for (count,) in rows]
    assert together == pytest.approx(np.array(alone))
    assert TARGET.verify_seconds(2, np.array([], int)).shape == (0,)


def test_of_three_prefixes_the_nearest_two_count():
    rows = (*TARGET.verify, (3.5, 7.0, 9.0))
    three = TARGET.model_copy(update={"prefixes": (10, 30, 40), "verify": rows})
    # From 30 to 40 tokens a row takes 1/2 more.
    assert list(three.verify_seconds(1, [0, 10, 20, 30, 32, 40, 60])) == pytest.approx(
        [1.0, 1.0, 2.0, 3.0, 3.1, 3.5, 4.5]
    )


def test_of_one_prefix_every_prefix_costs_the_same():
    one = TARGET.model_copy(update={"prefixes": (10,), "verify": ((1.0, 2.0, 6.0),)})
    assert list(one.verify_seconds(2, np.array([1, 10, 500]))) == [1.5, 1.5, 1.5]
    assert (one.typical_prefix, TARGET.typical_prefix) == (10.0, 20.0)


def test_of_one_count_of_rows_every_count_costs_the_same():
    one = TARGET.model_copy(update={"rows": (1,), "verify": ((1.0,), (3.0,))})
    assert list(one.verify_seconds(np.array([1, 9]), 20)) == [2.0, 2.0]


def test_a_forward_may_cost_less_than_one_over_fewer_rows_and_beyond_the_last_no_less_than_that():
    falling = TARGET.model_copy(update={"verify": ((2.0, 1.0, 0.8), (3.0, 2.0, 6.0))})
    assert list(falling.verify_seconds(np.array([1, 2, 3, 7, 9, 99]), 10)) == pytest.approx(
        [2.0, 1.5, 1.0, 0.8, 0.8, 0.8]
    )


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(10, 1.0), (40, 6.0), (15, 1.5), (30, 4.0), (50, 8.0), (5, 1.0)]
)
def test_a_prompt_between_and_beyond_measured_ones_follows_straight_lines(tokens, seconds):
    assert TARGET.prefill_seconds(tokens) == pytest.approx(seconds)


def test_of_one_prompt_every_prompt_costs_the_same():
    one = TARGET.model_copy(update={"prompt_tokens": (10,), "prefill": (1.5,)})
    assert [one.prefill_seconds(tokens) for tokens in (1, 10, 99)] == [1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("growth", "bookkeeping"),
    [
        ("fixed", 2 * 0.02 + 9 * 0.002),
        ("dynamic", 2 * 0.03 + 9 * 0.004),
        ("cost_aware", 2 * 0.05 + 9 * 0.006),
    ],
)
def test_a_price_is_the_one_that_is_added_up_by_hand(growth, bookkeeping):
    """Two rounds, the first of which the cheap one of two drafters drafts alone."""
    price = COSTS.price(
        replay(
            accepted_per_round=(2, 1),
            drafted_per_round=(3, 6),
            levels_per_round=((1, 2), (1, 2, 3)),
            alone_per_round=(True, False),
        ),
        growth,
    )
    # 4 rows after the prompt's 10 tokens; 7 rows after 3 tokens more.
    verify = 3.0 + (6.0 + 3 / 20 * 2.0)
    # The token of the prompt's forward is new to the drafters at the first root; at the second, it is still
    # new to the costly one, and so are two accepted tokens and the one after them.
    levels = (0.1 + 1 * 0.01) + (0.2 + 2 * 0.02) + (1.0 + 4 * 0.1) + (2.0 + 2 * 0.2) + (3.0 + 3 * 0.3)
    commits = (0.01 + 2 * 0.001) + (0.01 + 1 * 0.001)
    assert price.rounds == pytest.approx(verify + levels + commits + bookkeeping)
    assert price.first == pytest.approx(1.0 + 0.5 + 10 * 0.1)
    assert price.whole == pytest.approx(price.first + price.rounds)


@pytest.mark.parametrize(
    ("alone", "unread"),
    [
        ((False, False, False), (1, 3, 2)),
        ((True, False, False), (1, 4, 2)),
        ((True, True, False), (1, 4, 6)),
        ((False, True, True), (1, 3, 5)),
    ],
)
def test_a_root_costs_by_the_tokens_since_the_costly_drafter_drafted(alone, unread):
    costs = COSTS.model_copy(
        update={
            "target": TARGET.model_copy(update={"rows": (1,), "prefixes": (10,), "verify": ((1.0,),)}),
            "levels": dict.fromkeys(("root", "alone_root"), Line(base=0.0, unit=1.0)),
            "commit": Line(base=0.0, unit=0.0),
            "bookkeeping": {"fixed": Line(base=0.0, unit=0.0)},
        }
    )
    drafting = replay(
        accepted_per_round=(2, 1, 0),
        drafted_per_round=(2, 2, 2),
        levels_per_round=((1,), (1,), (1,)),
        alone_per_round=alone,
    )
    assert costs.price(drafting, "fixed").rounds == pytest.approx(3 * 1.0 + sum(unread))


NO_ROUNDS = {
    "accepted_per_round": (),
    "drafted_per_round": (),
    "levels_per_round": (),
    "alone_per_round": (),
}


def test_a_round_without_a_draft_costs_a_forward_of_one_row():
    drafting = replay(
        accepted_per_round=(0,), drafted_per_round=(0,), levels_per_round=((),), alone_per_round=(False,)
    )
    assert COSTS.price(drafting, "fixed").rounds == pytest.approx(1.0 + 0.01 + 0.02)


def test_the_prompts_own_token_needs_no_round():
    drafting = replay(**NO_ROUNDS)
    assert COSTS.price(drafting, "fixed") == (pytest.approx(2.5), 0.0)
    assert COSTS.autoregressive(drafting) == (1.0, 0.0)


def test_autoregressive_decoding_is_priced_token_by_token():
    drafting = replay(**NO_ROUNDS).model_copy(update={"new_tokens": 4})
    # One row after 10, 11 and 12 tokens; the drafter reads no prompt.
    assert COSTS.autoregressive(drafting) == (1.0, pytest.approx(1.0 + 1.1 + 1.2))


@pytest.mark.parametrize(
    ("depth", "alone", "kind"),
    [
        (0, False, "root"),
        (1, False, "first"),
        (2, False, "deep"),
        (6, False, "deep"),
        (0, True, "alone_root"),
        (1, True, "alone_deep"),
        (3, True, "alone_deep"),
    ],
)
def test_a_level_has_its_kind_and_cost(depth, alone, kind):
    assert level_kind(depth, alone) == kind
    assert COSTS.level(depth, alone) == COSTS.levels[kind]


@pytest.mark.parametrize(
    ("there", "kind", "taken"),
    [
        (("first", "deep"), "root", "first"),
        (("deep",), "root", "deep"),
        (("root", "deep"), "first", "deep"),
        (("root",), "first", "root"),
        (("root", "first"), "deep", "first"),
        (("root",), "deep", "root"),
        (("root", "deep", "alone_deep"), "alone_root", "alone_deep"),
        (("root", "first", "deep"), "alone_root", "root"),
        (("root", "deep", "alone_root"), "alone_deep", "alone_root"),
        (("root", "first", "deep"), "alone_deep", "deep"),
        (("root", "first"), "alone_deep", "first"),
        (("alone_root", "alone_deep"), "root", "alone_root"),
        (("alone_root", "alone_deep"), "deep", "alone_deep"),
    ],
)
def test_a_level_that_was_not_measured_costs_what_the_nearest_does(there, kind, taken):
    levels = {name: COSTS.levels[name] for name in there}
    assert nearest(levels, kind) == levels[taken]


@pytest.mark.parametrize("kind", COSTS.levels)
def test_where_no_level_was_measured_drafting_costs_nothing(kind):
    assert nearest({}, kind) == Line(base=0.0, unit=0.0)
