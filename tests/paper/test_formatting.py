"""Numbers, marks and names as LaTeX."""

import math
from typing import get_args

import pytest

from ablations.evidence.decisions import Decision, Outcome
from ablations.evidence.statistics import Estimate
from ablations.paper import formatting, vocabulary, wording


def test_every_special_character_is_escaped():
    assert wording.tex(r"a_b & 50% #1 $x$ {y} ~ ^ \z <|>") == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
        r" \textless{}\textbar{}\textgreater{}"
    )


def test_line_breaks_of_names_become_spaces():
    assert wording.tex("two\nlines") == "two lines"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.1234, "$+0.123$"), (-0.1234, "$-0.123$"), (-0.0001, "$0.000$"), (0.0, "$0.000$")],
)
def test_differences_have_a_sign_unless_they_round_to_zero(value, expected):
    assert formatting.signed_nats(value) == expected


def test_speed_comes_as_a_log_ratio():
    assert formatting.factor(math.log(1.5)) == r"$1.50\times$"
    assert formatting.percent_change(math.log(0.75)) == r"$-25.0\%$"
    estimate = Estimate(value=0.0, low=math.log(0.5), high=math.log(2), n=3, sd=1.0)
    assert formatting.factor_interval(estimate) == r"$[0.50,\,2.00]$"


def test_a_factor_without_an_end_is_only_said_to_be_large():
    wide = Estimate(value=0.0, low=-50.0, high=800.0, n=2, sd=1.0)
    assert formatting.factor_interval(wide) == r"$[0.00,\,{>}1000.00]$"
    assert formatting.percent_change_interval(wide) == r"$[-100.0,\,{>}+99900.0]$"
    assert formatting.ratio_percent(8.0) == r"${>}100000.0\%$"


def test_no_interval_is_said_so():
    assert formatting.nats_interval(Estimate(value=1.0, low=None, high=None, n=1, sd=None)) == "no interval"


def test_small_p_values_are_bounds():
    assert formatting.p_value(0.0004) == "$p<0.001$"
    assert formatting.p_value(0.0312) == "$p=0.031$"


def decision(**changes) -> Decision:
    usual = {"experiment": "A", "aspect": "text", "level": "down", "against": "baseline", "outcome": None}
    return Decision(**usual | {"kind": "confirmatory"} | changes)


def test_predictions_in_symbols():
    assert vocabulary.predicted(decision()) == r"T~$\downarrow$"
    assert vocabulary.predicted(decision(aspect="retrieval", level="down_strong")) == (
        r"R~$\downarrow\downarrow$"
    )
    assert vocabulary.predicted(decision(aspect="speed", level="same")) == r"S~$\approx$"
    assert vocabulary.predicted(decision(aspect="above", level="up", against="F_2")) == r"S~$>$~F\_2"
    assert vocabulary.predicted(decision(aspect="less_traffic", against="G2")) == "B~$<$~G2"


def test_outcomes_are_words_of_confirmatory_and_counted_predictions():
    assert vocabulary.outcome(decision(outcome="as_expected")) == "yes"
    assert vocabulary.outcome(decision(outcome="not_resolved")) == "open"
    assert vocabulary.outcome(decision()) == formatting.ABSENT
    assert vocabulary.outcome(decision(kind="counted", outcome="opposite")) == "(opposite)"
    assert vocabulary.outcome(decision(kind="exploratory")) == ""
    every = {vocabulary.outcome(decision(outcome=outcome)) for outcome in get_args(Outcome)}
    assert len(every) == len(get_args(Outcome))


def test_equal_entries_are_said_once():
    assert wording.per_stage([0.7] * 10) == "0.7 at each of 10 stages"
    assert wording.per_stage((0.7, 0.5)) == "0.7, 0.5"
    assert wording.value((3, 3)) == "3, 3"
    assert wording.value((4, 7)) == "4, 7"
    assert wording.value(None) == "none"


def test_steps_have_real_signs():
    assert wording.step("- tree_x") == r"$-$~tree\_x"
    assert wording.step("AR") == "AR"


def test_bytes_have_the_largest_unit_that_leaves_one():
    assert formatting.size(0) == r"$0$\,B"
    assert formatting.size(1023) == r"$1023$\,B"
    assert formatting.size(1024) == r"$1.00$\,KiB"
    assert formatting.size(1.5 * 1024**3) == r"$1.50$\,GiB"


def test_ratios_as_per_cent():
    assert formatting.ratio_percent(math.log(0.95)) == r"$95.0\%$"
    estimate = Estimate(value=0.0, low=math.log(0.9), high=math.log(1.1), n=6, sd=1.0)
    assert formatting.ratio_percent_interval(estimate) == r"$[90.0,\,110.0]$"
    assert formatting.percent_interval(Estimate(value=0.5, low=0.4, high=0.6, n=6, sd=0.1)) == (
        r"$[40.0,\,60.0]$"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("na\u00efve \u0141\u00f3d\u017a", "na\u00efve \u0141\u00f3d\u017a"),
        ("\u2264 5 \u00d7", r"$\leq$ 5 $\times$"),
        ("\u0127 \u01cd \u210d", "[U+0127] A H"),
        ("\u4e2d \U0001f600", "[U+4E2D] [U+1F600]"),
        ("a\u0000b", "ab"),
    ],
)
def test_characters_that_no_latin_font_has_are_named(text, expected):
    assert wording.tex(text) == expected


def test_numbers_without_latex():
    assert wording.plain(r"$-0.123$") == "\u22120.123"
    assert wording.plain(r"$[0.12,\,3.40]$") == "[0.12,\u20093.40]"
    assert wording.plain(r"${>}1000.00\times$") == ">1000.00\u00d7"
