"""What the section says beside its numbers is said only where the records bear it out."""

import re

import pytest

from ablations.evidence.statistics import Estimate
from ablations.evidence.verdicts import judge
from ablations.paper.formatting import touches
from ablations.paper.numbers import all_quantities
from ablations.paper.section import render_section
from ablations.paper.summary import Summary
from ablations.paper.tables import write_tables
from tests.paper.conftest import TEMPLATES
from tests.paper.test_section import paragraph


def with_effect(summary: Summary, name: str, low: float, high: float, p: float, adjusted: float) -> Summary:
    """The summary in which the quality effect of an experiment is another one, and judged as such."""
    row = summary.row(name)
    versus = row.versus
    old = summary.comparison(name, versus, "quality")
    effect = Estimate(value=(low + high) / 2, low=low, high=high, n=20, sd=0.2)
    new = old.model_copy(update={"estimate": effect, "p": p, "p_adjusted": adjusted})
    parts = []
    for part in row.parts:
        if part.aspect == "quality":
            verdict, reason = judge(part.level, new, summary.settings.thresholds)
            part = part.model_copy(update={"verdict": verdict, "reason": reason})
        parts.append(part)
    return summary.model_copy(
        update={
            "comparisons": tuple(new if item is old else item for item in summary.comparisons),
            "rows": tuple(
                item.model_copy(update={"parts": tuple(parts)}) if item.id == name else item
                for item in summary.rows
            ),
        }
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_adjustment_is_the_reason_only_where_the_test_by_itself_rejects(study, sign):
    """A5 is expected to be worse; an interval on either side of zero with a p-value above the level."""
    ends = sorted((sign * 0.02, sign * 0.24))

    def told(p: float, adjusted: float) -> str:
        summary = with_effect(study.summary, "A5", *ends, p, adjusted)
        assert summary.row("A5").parts[0].reason.endswith("not_significant")
        return paragraph(render_section(summary, TEMPLATES), "A5").split("Whether there is")[1]

    both = told(0.007, 0.093)
    assert "$p=0.007$ by itself, is above the level once it is adjusted" in both
    assert "for the number of comparisons ($p=0.093$)" in both
    alone = told(0.058, 0.46)
    assert "is above the level even without adjustment ($p=0.058$)" in alone
    assert "number of comparisons" not in alone


def test_an_interval_that_ends_at_zero_as_printed_says_that_it_was_rounded(study):
    def told(low: float) -> str:
        return paragraph(
            render_section(with_effect(study.summary, "A5", low, 0.2, 0.01, 0.02), TEMPLATES), "A5"
        )

    assert "the interval excludes zero effect (before its ends are rounded) on the expected side" in told(
        1e-4
    )
    assert "the interval excludes zero effect on the expected side" in told(0.002)


@pytest.mark.parametrize(
    ("form", "near", "far"), [("nats", 4e-4, 6e-4), ("factor", 4e-3, 6e-3), ("percent_change", 4e-4, 6e-4)]
)
def test_an_end_touches_zero_where_it_prints_as_no_effect(form, near, far):
    for sign in (1, -1):
        for size, expected in ((near, True), (far, False)):
            ends = dict(zip(("low", "high"), sorted((sign * size, sign * 1.0)), strict=True))
            assert touches(Estimate(value=0.5, n=9, sd=1.0, **ends), form) is expected
    assert not touches(Estimate(value=0.5, low=None, high=None, n=1, sd=None), "nats")


def part_of(section: str, label: str) -> str:
    return section.split(rf"\label{{sec:ablation-{label}}}")[1].split(r"\subsection")[0]


def test_prompts_are_called_the_same_only_where_they_are(study):
    forward, drafter = (part_of(study.section, label) for label in ("forward", "drafter"))
    assert "Target, weights, prompts and the permitted length are the same in all rows" in drafter
    assert "Target, weights and the permitted length are the same in all rows" in forward
    assert "So are the prompts but for F3 (6 of 16), and two rows are compared on those" in forward
    assert "tokens per second over its six prompts together" in paragraph(study.section, "F3")
    assert "It decodes six of the sixteen prompts" in paragraph(study.section, "F3")
    assert "decodes six" not in paragraph(study.section, "F4")
    for name in ("decoding_column.tex", "decoding_backward_column.tex"):
        assert re.search(r"Fewer prompts: [FK][23] \(6 of 16\)", study.table(name))


def test_where_all_decode_the_same_prompts_no_row_is_said_to_decode_fewer(study, tmp_path):
    rows = tuple(
        row.model_copy(update={"decoding": row.decoding.model_copy(update={"prompts": 16})})
        if row.decoding
        else row
        for row in study.summary.rows
    )
    summary = study.summary.model_copy(update={"rows": rows})
    section = render_section(summary, TEMPLATES)
    assert "prompts and the permitted length are the same" in part_of(section, "forward")
    assert "of 16)" not in section
    write_tables(summary, TEMPLATES, tmp_path)
    assert "Fewer prompts" not in (tmp_path / "decoding_column.tex").read_text()


def test_outputs_are_called_the_same_only_where_all_are(study, render):
    assert "The output is the same, too" in part_of(study.section, "forward")
    tied = part_of(render(unmatched=2).section, "forward")
    assert "The output is the same" not in tied
    assert "But for the departures counted in Section" in tied


def test_unchanged_output_is_token_for_token_but_for_ties(study, render):
    assert "is unchanged, token for token (" in paragraph(study.section, "F2")
    assert "token for token, but for departures at ties (" in paragraph(render(unmatched=2).section, "F2")


def test_operations_are_no_bound_of_speed(study, render):
    """A prefill faster than the ratio of its operations says."""
    fast = render(speedups={"A7": 9.0})
    assert fast.summary.row("A7").sdtp.bound.value > 0
    for section in (study.section, fast.section):
        assert not re.search(r"would allow|is reached|the bound", section)
    ratio = {item.name: item.text for item in all_quantities(fast.summary)}["A7.of_ideal"]
    assert f"its speed-up is {ratio} of the inverse of this share" in paragraph(fast.section, "A7")


def test_ratios_compound_down_to_the_protected_tokens_where_there_are_some(study):
    assert "thus compounds, down to the protected tokens at most." in part_of(study.section, "ratio")
    free = study.summary.sdtp.model_copy(update={"head": 0, "tail": 0})
    section = render_section(study.summary.model_copy(update={"sdtp": free}), TEMPLATES)
    assert "thus compounds. The" in part_of(section, "ratio")


def test_no_heading_promises_a_gpu(whole):
    assert not [line for line in re.findall(r"\\(?:sub)*section\{(.*)\}", whole.section) if "GPU" in line]


def test_a_part_over_ranks_is_said_to_leave_tokens_only_where_some_rows_do(whole):
    def opening(names: tuple[str, ...]) -> str:
        rows = [row for row in whole.summary.rows if row.section != "parallel" or row.id in names]
        section = render_section(whole.summary.model_copy(update={"rows": tuple(rows)}), TEMPLATES)
        return part_of(section, "parallel").split(r"\paragraph")[0]

    leave, split = "leave it in place in part", "split the prefill over ranks"
    both = opening(("C1", "GB"))
    assert f"Some experiments of this part {leave}" in both
    assert f"Others {split}" in both
    assert split not in opening(("C1", "C3"))
    assert leave not in opening(("GB", "G0"))


def test_arms_that_train_their_own_scorer_are_not_said_to_reuse_one(whole, study):
    assert "change the ratio or the protection reuse it, but for R9t." in whole.section
    assert "change the ratio or the protection reuse it. Its" in study.section


def test_one_open_expectation_does_not_leave_a_row_undecided(whole):
    """A row with a supported and an open expectation is not called undecided as a whole."""
    assert not re.search(r"undecided|is decided by", whole.section)
    assert "each leave at least one expectation open" in whole.section


def test_nothing_is_called_registered_or_stated_beforehand(whole):
    assert not re.search(r"regist|beforehand", whole.section.replace("is set beforehand", ""))


def test_a_text_ends_before_its_length_only_where_it_does(whole):
    full, points = whole.section, whole.summary.length_grid
    assert points[-1].new_tokens == points[-1].tokens
    assert "as some texts end before" not in full
    shorter = tuple(item.model_copy(update={"new_tokens": item.tokens - 9.0}) for item in points)
    section = render_section(whole.summary.model_copy(update={"length_grid": shorter}), TEMPLATES)
    assert "as some texts end before" in section
