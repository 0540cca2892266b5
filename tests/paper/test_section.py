"""The section: prose that follows outcome and verdict, whatever the mixture."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from ablations.core.errors import UserError
from ablations.core.record import write_record
from ablations.evidence.expectations import Expectation, Experiment
from ablations.paper.drawing.keep_ratio import keep_ratio_figure
from ablations.paper.numbers import all_quantities
from ablations.paper.rendering import render as render_template
from ablations.paper.section import LABELS, exactness, render_section
from ablations.paper.summary import Difference, Summary
from tests.paper.conftest import TEMPLATES
from tests.paper.design import SMALL, WHOLE
from tests.paper.synthetic_decoding import DYNATREE, SHARED
from tests.paper.synthetic_sdtp import sdtp_record

IDS = [*SMALL, *(name for name in DYNATREE if name not in SHARED)]


def paragraph(section: str, name: str) -> str:
    """What the section says of one experiment."""
    found = re.search(
        rf"\\paragraph\{{{name}: (.*?)(?=\\paragraph|\\subsection|\\subsubsection|\Z)", section, re.S
    )
    assert found, f"no paragraph for {name}"
    return found[1]


def test_every_experiment_has_its_paragraph(study):
    for row in study.summary.rows:
        assert paragraph(study.section, row.id)


def test_labels_and_floats_are_stable(study):
    for label in (
        "sec:ablation",
        "sec:ablation-setup",
        "sec:ablation-ratio",
        "fig:keep-ratio",
        "fig:forward",
    ):
        assert rf"\label{{{label}}}" in study.section
    for target in (
        r"\input{tables/sdtp_matrix}",
        r"\input{tables/decoding}",
        r"\input{tables/decoding_backward}",
    ):
        assert study.section.count(target) == 1


def test_the_section_says_how_rounds_become_one_time_and_what_noise_is(study, render):
    assert "the median over a document's rounds and a geometric mean over documents" in study.section
    assert "three timed rounds per document for SDTP, two per prompt for decoding" in study.section
    numbers = {item.name: item.text for item in all_quantities(study.summary)}
    sentence = study.section.split("A second run of the reference in the same rounds")[1].split(".\n")[0]
    for name in ("noise.sdtp.median", "noise.sdtp.p95", "noise.dynatree.median", "noise.dynatree.p95"):
        assert numbers[name] in sentence
    nothing = render(missing=(*SMALL, *DYNATREE))
    assert "A second run" not in nothing.section


def test_the_heading_level_is_a_setting(render):
    section = render(settings={"heading": "subsection"}).section
    assert r"\subsection{Ablation Studies}" in section
    assert r"\subsubsection{Experimental Setup}" in section
    assert r"\section{" not in section


def test_flipping_an_effect_flips_verdict_and_prose(study, render):
    flipped = render(added_nll={"A6": 0.1})
    assert study.summary.row("A6").verdict == "supported"
    assert flipped.summary.row("A6").verdict == "contradicted"
    assert r"is \emph{supported}, and so is its size" in paragraph(study.section, "A6")
    assert r"\emph{contradicted}: the effect has the opposite sign" in paragraph(flipped.section, "A6")
    assert "The results of A5, A6 and K5 each contradict at least one expectation" in flipped.section


def test_a_flipped_record_changes_verdict_prose_table_figure_and_number(study, render):
    """The NLL of one record changes sign against the baseline, everything else stays."""
    flipped = render(added_nll={"A7": 0.1})
    before, after = (item.summary.row("A7") for item in (study, flipped))
    assert (before.verdict, after.verdict) == ("supported", "contradicted")
    assert paragraph(study.section, "A7") != paragraph(flipped.section, "A7")
    assert "the effect has the opposite sign" in paragraph(flipped.section, "A7")
    assert "came out as expected and A7 contradicts at least one expectation" in flipped.section

    def cells(item) -> str:
        return item.table("sdtp_matrix.tex").split("% A7:")[1].split("addlinespace")[0]

    assert r"\ablationverdict{supported}{ran}" in cells(study)
    assert r"\ablationverdict{contradicted}{ran}" in cells(flipped)

    def drawn(item) -> float:
        axes = keep_ratio_figure(item.summary).axes[0]
        (label,) = (text for text in axes.texts if text.get_text() == "0.5")
        return label.xy[1]

    assert drawn(study) == before.sdtp.quality.value != drawn(flipped) == after.sdtp.quality.value
    effects = [
        {number.name: number for number in all_quantities(item.summary)}["A7.effect"]
        for item in (study, flipped)
    ]
    assert effects[0].value > 0 > effects[1].value
    assert effects[0].text.startswith("$+") and effects[1].text.startswith("$-")


def test_parts_come_in_the_order_of_the_design_however_they_are_configured(render):
    design = {name: WHOLE[name] for name in ("baseline", "C1", "A7", "M1", "A2", "A1s")}
    section = render(design=design).section
    found = re.findall(r"\\paragraph\{(\w+): ", section)
    assert [name for name in found if name in design][-5:] == ["A1s", "A2", "M1", "A7", "C1"]


def test_comparators_precede_what_is_compared_with_them(whole):
    ids = [row.id for row in whole.summary.rows]
    for row in whole.summary.rows:
        other = whole.summary.row(row.versus or "")
        if (
            other is not None
            and other.section == row.section
            and row.id not in whole.summary.settings.backward
        ):
            assert ids.index(other.id) < ids.index(row.id)
    assert sorted(ids) == sorted(item["id"] for item in json.loads(whole.plan.read_text())["experiments"])


def test_threats_follow_the_records(study, whole):
    threats = study.section.split(r"\paragraph{Threats to validity.}")[1].split(r"\subsection")[0]
    for topic in ("Models", "Hardware", "Loops", "Length", "Power", "Measures"):
        assert rf"\emph{{{topic}.}}" in threats
    assert "Synthetic CPU @ 2.00GHz" in threats
    assert not re.search(r"\S\\emph\{(?:Hardware|Loops|Length|Power|Measures)", threats)
    assert "No GPU was used" in threats
    assert "Prices of replayed drafts were not timed" in whole.section
    content = study.summary.model_dump(mode="json")
    content["facts"] = {"sdtp": {"parameters": 134515008, "layers": 30, "weights": "dequantised"}}
    content["machines"][0]["device_type"] = "cuda"
    told = render_section(Summary.model_validate(content), TEMPLATES)
    assert "A model of $135$ million parameters in 30 layers was measured" in told
    assert "The weights are dequantised" in told
    assert "No GPU was used" not in told


def test_where_nothing_was_repeated_no_arm_is_the_one_that_repeats_most(study):
    content = study.summary.model_dump(mode="json")
    for row in content["rows"]:
        if row["decoding"]:
            row["decoding"]["repeated_4grams"] = 0.0
    told = render_section(Summary.model_validate(content), TEMPLATES)
    tokens = study.summary.decoding.new_tokens
    assert f"in generations of at most {tokens} tokens no drafting arm has a 4-gram a second time" in told
    assert "here no generated 4-gram had occurred before in the same text (F4)" in told
    assert "repeats most" in study.section
    assert "the share of generated 4-grams that had occurred before" in study.section


def test_tables_of_one_column_take_the_place_of_the_full_ones(render):
    study = render(settings={"width": "column"})
    for name in ("sdtp_matrix", "decoding", "decoding_backward"):
        assert rf"\input{{tables/{name}_column}}" in study.section
        assert rf"\input{{tables/{name}}}" not in study.section
        assert r"\begin{table}" in study.table(f"{name}_column.tex")


def test_the_margin_links_records_where_it_is_asked_for(study, render):
    linked = render(settings={"provenance": True})
    for row in linked.summary.rows:
        links = [rf"\href{{../{file.path}}}" for file in row.files]
        assert all(link in paragraph(linked.section, row.id) for link in links)
    assert rf"\href{{../{linked.summary.row('A7').files[0].path}}}{{A7}}" in linked.table("sdtp_matrix.tex")
    assert "href" not in study.section


def test_inconclusive_says_what_could_have_been_detected(render):
    study = render(added_nll={"A2": 0.41}, documents=16)
    assert study.summary.row("A2").verdict == "inconclusive"
    assert "The MDE of" in paragraph(study.section, "A2")


def test_a_crash_is_reported_with_its_exception(render):
    text = paragraph(render(crashed=("A7",)).section, "A7")
    assert r"raised \texttt{RuntimeError} in apply\_rotary\_pos\_emb" in text
    assert "could not be tested" in text


def test_an_expected_crash_is_supported(render, tmp_path):
    write_record(tmp_path / "A99.json", sdtp_record("B2", 4, WHOLE["B2"]))
    crash = Experiment(
        id="A99",
        method="sdtp",
        title="Stale positions",
        section="positions",
        change={"positions": "packed"},
        expect=Expectation(quality="crash"),
        versus="baseline",
        records=(str(tmp_path / "A99.json"),),
    )
    study = render(extra=(crash,))
    assert study.summary.row("A99").verdict == "supported"
    assert "That it would fail was expected" in paragraph(study.section, "A99")
    assert r"\ablationverdict{supported}{crashed}" in study.table("sdtp_matrix.tex")


def test_what_has_not_been_run_says_so(render):
    text = paragraph(render(missing=("F2",)).section, "F2")
    assert "has not been run" in text
    assert "$" not in text.split("The hypothesis was")[1]


def test_a_section_of_the_users_own_gets_a_part(render):
    own = Experiment(
        id="X1",
        method="sdtp",
        title="50% & more_{x} #1 \\ ~",
        section="my_own & section",
        change={"mask": "hard"},
        hypothesis="Costs < 5% of $quality$.",
        versus="baseline",
        records=("nowhere.json",),
    )
    section = render(extra=(own,)).section
    assert r"\subsection{My own \& section}" in section
    assert r"\label{sec:ablation-my-own-section}" in section
    assert r"50\% \& more\_\{x\} \#1 \textbackslash{} \textasciitilde{}" in section
    assert r"Costs \textless{} 5\% of \$quality\$." in section


def test_parts_whose_names_read_alike_have_labels_of_their_own(render):
    names = ["My part", "my-part", "+", "!", "Setup", "Forward"]
    experiments = tuple(
        Experiment(
            id=f"X{number}",
            method="sdtp",
            title=name,
            section=name,
            change={"mask": "hard"},
            hypothesis="It costs.",
            versus="baseline",
            records=("nowhere.json",),
        )
        for number, name in enumerate(names)
    )
    section = render(extra=experiments).section
    labels = re.findall(r"\\label\{([^}]+)\}", section)
    assert len(labels) == len(set(labels))
    own = ["my-part", "my-part-2", "other", "other-2", "setup", "setup-2", "forward", "forward-2"]
    assert {f"sec:ablation-{name}" for name in own} <= set(labels)


def test_labels_of_fixed_parts_are_those_of_the_templates():
    found = {
        label
        for path in TEMPLATES.glob("*.j2")
        for label in re.findall(r"\\label\{sec:ablation-([a-z-]+)\}", path.read_text())
    }
    assert found == set(LABELS)


def test_joint_conclusions(render, study):
    assert "In sum, both experiments tested here came out as expected." in study.section
    mixed = render(added_nll={"A7": 0.2})
    assert (
        "In sum, the picture is mixed: A9 came out as expected and A7 contradicts at least one expectation."
        in mixed.section
    )
    none = render(added_nll={"A7": 0.2, "A9": 0.6})
    assert "neither of the two experiments tested here came out as expected" in none.section


def test_ties_and_departures_are_counted(study, render):
    assert "198 of 198 generations are identical" in study.section
    assert "the other 26 depart at a tie" in render(unmatched=2).section


@pytest.mark.parametrize("seed", range(8))
def test_any_mixture_of_outcomes_renders(render, seed):
    states = itertools.cycle(["ok", "missing", "crashed", "ok", "missing"])
    for _ in range(seed):
        next(states)
    state = dict(zip(IDS, states, strict=False))
    chosen = {
        kind: tuple(name for name, how in state.items() if how == kind) for kind in ("missing", "crashed")
    }
    study = render(documents=6, **chosen)
    for row in study.summary.rows:
        assert paragraph(study.section, row.id)
    assert "None" not in study.section
    assert "nan" not in re.sub(r"[a-z]{2,}nan|nan[a-z]+", "", study.section)


def test_nothing_run_at_all_still_renders(render):
    section = render(missing=tuple(IDS)).section
    assert "Nothing has been measured yet." in section
    assert section.count("has not been run") >= len(IDS)


def test_rendering_is_reproducible(study):
    assert render_section(study.summary, TEMPLATES) == study.section


def test_the_command_lines_agree_with_the_library(study, tmp_path):
    summary, section = tmp_path / "summary.json", tmp_path / "ablation.tex"
    python = [sys.executable, "-m"]
    subprocess.run([*python, "ablations.paper.collect", "--plan", study.plan, "--out", summary], check=True)
    arguments = ["--summary", summary, "--templates", TEMPLATES, "--out", section]
    subprocess.run([*python, "ablations.paper.section", *arguments], check=True)
    assert json.loads(summary.read_text()) == study.summary.model_dump(mode="json")
    assert section.read_text() == study.section


def test_a_missing_summary_is_one_line(tmp_path):
    arguments = ["--summary", tmp_path / "none.json", "--templates", TEMPLATES, "--out", tmp_path / "x.tex"]
    done = subprocess.run(
        [sys.executable, "-m", "ablations.paper.section", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_what_a_template_does_not_know_is_an_error(study, tmp_path):
    (tmp_path / "x.j2").write_text(r"\VAR{summary.no_such_number}")
    with pytest.raises(UserError, match="no_such_number"):
        render_template(tmp_path, "x.j2", study.summary)
    (tmp_path / "y.j2").write_text(r"\VAR{nothing}")
    with pytest.raises(UserError, match="null"):
        render_template(tmp_path, "y.j2", study.summary, nothing=None)


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.j2")), ids=lambda path: path.name)
def test_templates_hold_no_measured_number(path):
    text = re.sub(r"hsize=[\d.]+\\+hsize", "", path.read_text())
    text = re.sub(r"\\(?:setlength|addlinespace|\\)[^\n]*?(?:pt|ex)", "", text)
    unit = r"\\?%|\\times|x\b|nats|tokens|ms\b|s\b|seconds|GB|MB|MiB|documents|prompts"
    assert re.findall(rf"(?<![\w.-])\d+\.\d+|(?<![\w.-])\d+(?:\$|~|\\,|[ \t])*(?:{unit})", text) == []


def test_a_loss_is_said_to_improve_ranking_or_not(whole, render):
    assert r"That the ranking loss improves ranking is thus \emph{supported}" in paragraph(
        whole.section, "A3"
    )
    assert r"Whether the MSE loss improves ranking remains open" in paragraph(whole.section, "A4")
    assert r"That the MSE loss and the ranking loss together improve ranking" in paragraph(
        whole.section, "A5"
    )
    better = {**WHOLE, "A3": replace(WHOLE["A3"], spearman=0.8)}
    text = paragraph(render(design=better, documents=4).section, "A3")
    assert r"is thus \emph{contradicted}: without, the order is better" in text


def test_epochs_on_the_unpruned_model_are_told(study):
    content = study.summary.model_dump(mode="json")
    content["sdtp"]["training"]["pruner"]["warmup_epochs"] = 3
    told = render_section(Summary.model_validate(content), TEMPLATES)
    assert "after three epochs on the saliency losses alone and the states of the unpruned model" in told
    assert "the epochs on the unpruned model and the separate clipping depart" in told
    assert "saliency losses alone" not in study.section


def test_traffic_is_told_in_bytes(whole):
    text = paragraph(whole.section, "G1")
    assert r"It sends $565$\,KiB over the boundary, $49.0\%$ of what the unpruned model sends." in text
    assert r"less traffic than G2 is \emph{supported}: the bytes are counted" in text


def test_ranks_that_were_not_timed_say_why(render, tmp_path):
    record = sdtp_record("GB", 4, WHOLE["GB"])
    samples = tuple(sample.model_copy(update={"pairs": (), "ranks": ()}) for sample in record.samples)
    write_record(tmp_path / "GX.json", record.model_copy(update={"samples": samples}))
    untimed = Experiment(
        id="GX",
        method="sdtp",
        title="Two ranks on one core",
        section="parallel",
        change=WHOLE["GB"].change,
        versus="baseline",
        records=(str(tmp_path / "GX.json"),),
    )
    study = render(extra=(untimed,))
    assert "Times are not reported, because the ranks outnumber the cores" in paragraph(study.section, "GX")
    row = study.table("sdtp_pipeline.tex").split("% GX:")[1]
    assert row.split(r"\bottomrule")[0].count("---") == 2


def test_seeds_are_told(study):
    assert "(a mean over three seeds, between which it varies" in paragraph(study.section, "A2")
    assert "seeds" not in paragraph(study.section, "A7")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("A1", "whose backward pass belongs to this arm's prefill"),
        ("A1s", "mean saliency of training windows at the same relative position"),
        ("M1", "ranked by recency"),
        ("A6m", "each stage keeps as many tokens as in the baseline"),
        ("B1", "fewer stages drop fewer tokens"),
        (
            "B1m",
            "one ratio for all stages ($0.31$) gives the prefill as many operations",
        ),
        ("B2", "The correction of the index is disabled"),
        ("B2p", "numbered anew at every stage"),
        ("C1", "Removal is disabled"),
        ("C2", "The cascade is disabled"),
        ("C3", "The update of masks is disabled"),
        ("G0", "Pruning before the boundary is disabled"),
        ("P1", "As calibrated, a stage keeps $704$ tokens"),
        ("R9t", "trained at the ratio at which it is used"),
        ("T7", "The ratio holds for all stages together"),
        ("L2", "saliency of another definition"),
    ],
)
def test_each_kind_of_change_has_its_control_sentence(whole, name, sentence):
    assert sentence in paragraph(whole.section, name)


def test_every_part_of_the_design_has_its_own_heading(whole):
    headings = re.findall(r"\\subsection\{(.*)\}", whole.section)
    assert len(headings) == len(set(headings)) == 22
    assert "changes a component of SDTP" not in whole.section


def test_floats_without_their_part_stand_in_the_first(render):
    design = {name: WHOLE[name] for name in ("baseline", "A2", "GB")}
    design["GB"] = replace(design["GB"], section="elsewhere")
    section = render(design=design, lengths=(512,)).section
    first = section.split(r"\label{sec:ablation-baseline}")[1].split(r"\subsection")[0]
    for name in ("tables/sdtp_matrix", "tables/sdtp_ranking", "tables/sdtp_pipeline", "figures/sweep.pdf"):
        assert section.count(f"{{{name}}}") == 1
        assert f"{{{name}}}" in first
    assert "figures/keep_ratio.pdf" not in section


def test_each_decoding_row_is_said_to_differ_by_what_it_changes(study):
    said = {name: paragraph(study.section, name) for name in ("E2", "E3", "O1", "PL", "N1", "N3", "X1")}
    assert "between one and three children" in said["E2"]
    assert "proportional control" in said["E3"]
    assert "promise more accepted tokens" in said["O1"]
    assert (
        r"Where F4 has an n-gram model with live context, prompt lookup~\cite{saxena2023lookup} drafts"
        in said["PL"]
    )
    assert "A drafter is added to F1: a draft distilled from the target" in said["N1"]
    assert r"\texttt{shape.branching} (from \texttt{1} to \texttt{2})" in said["N3"]
    assert r"\texttt{shape.depth} (from \texttt{7} to \texttt{8})" in said["X1"]


def test_the_change_of_depth_in_the_forward_rows_is_named(study):
    text = study.section[study.section.index("Decoding: Forward Ablation") :]
    assert "The depth of the draft changes at F3 (from 6 to 7) together with other settings" in text


def test_grids_are_said_to_be_priced(whole, study):
    assert r"\emph{priced, not timed}" in whole.section
    for label in ("fig:grid", "fig:grid-trees", "fig:grid-lengths"):
        assert rf"\label{{{label}}}" in whole.section
    assert "Repetition and acceptance rise together" in whole.section
    assert "priced" not in study.section


def edited(study, name, other=None, **changes):
    """The section after the fields of one row were changed; `other` takes the results of the comparator."""
    rows = tuple(
        row.model_copy(update=changes)
        if row.id == name
        else row.model_copy(update=(other or {}).get(row.id, {}))
        for row in study.summary.rows
    )
    return paragraph(render_section(study.summary.model_copy(update={"rows": rows}), TEMPLATES), name)


def test_the_full_method_is_told_though_another_row_shares_its_record(study):
    rows = list(study.summary.rows)
    full = study.summary.row("F4")
    rows.append(full.model_copy(update={"id": "Z4"}))
    told = exactness(study.summary.model_copy(update={"rows": tuple(rows)}))
    assert told == exactness(study.summary)
    assert (told["source"], told["repeated"]) == ("F4", full.decoding.repeated_4grams)


def test_the_full_method_is_told_though_it_shares_the_record_of_an_earlier_row(study):
    settings = study.summary.settings.model_copy(update={"full_method": "Z3"})
    rows = (*study.summary.rows, study.summary.row("F3").model_copy(update={"id": "Z3"}))
    told = exactness(study.summary.model_copy(update={"rows": rows, "settings": settings}))
    assert told["source"] == "Z3"


def test_more_stages_are_not_called_fewer(whole):
    row = whole.summary.row("B1")
    stages = {"schedule": {"stages": 20}}
    result = row.sdtp.model_copy(update={"keep_ratios": (0.7,) * 20})
    more = edited(whole, "B1", change=stages, sdtp=result)
    assert "Pruning happens at more layers" in more
    assert "more stages drop more tokens" in more
    same = edited(whole, "B1", change={"schedule": {"layers": [5] * 10}}, sdtp=whole.summary.row("A7").sdtp)
    unknown = edited(whole, "B1", change=stages, sdtp=None, status="not_run")
    for text in (same, unknown):
        assert "Pruning happens at other layers" in text
        assert "fewer" not in text.split("The hypothesis")[0]
    both = edited(whole, "B1", change={"schedule": {"stages": 5, "keep_ratio": 0.9}})
    assert "how much is pruned, and where" in both
    assert "fewer stages" not in both


def test_a_component_is_isolated_or_not_against_the_comparator(whole):
    change = {"schedule": {"keep_ratio": 0.5}, "importance": "random"}
    heir = edited(whole, "A2", change=change, versus="A7")
    assert r"Only the component \texttt{importance} changes (\texttt{importance} = \texttt{random});" in heir
    assert "all others are as in A7" in heir
    for versus in ("baseline", "A8"):
        assert "This is a compound change" in edited(whole, "A2", change=change, versus=versus)
    assert "This is a compound change" in edited(
        whole, "A2", change=change, versus="A7", other={"A7": {"change": {"preserve": {"head": 0}}}}
    )


def test_a_row_over_ranks_is_not_called_what_it_is_not(whole):
    text = paragraph(whole.section, "GB")
    assert "it is the comparator of G0, G1 and G2." in text
    assert "same scorer, stages and survivors" in text
    compound = edited(whole, "GB", change={"pipeline": {"ranks": 2}, "importance": "random"})
    assert "survivors" not in compound
    assert "cannot be ascribed to the split alone" in compound
    alone = {name: {"versus": "baseline"} for name in ("G0", "G1", "G2")}
    assert "comparator" not in edited(whole, "GB", other=alone)
    after = edited(whole, "G0", versus="baseline")
    assert "runs after the transfer" in after
    assert "comparator" not in after
    both = edited(whole, "G0", change={"pipeline": {"ranks": 2, "prune": "after"}, "importance": "random"})
    assert "other settings change too" in both


def test_stages_are_said_of_keep_ratios_alone(study):
    change = {"adaptation": {"breadths": [3, 3, 3]}}
    assert r"\texttt{3, 3, 3}" in edited(study, "E2", differences=(), change=change)


def test_control_is_said_to_be_added_only_where_there_was_none(study):
    row = study.summary.row("E3")
    (history,) = (item for item in row.differences if item.key == "adaptation.history")
    assert "it adds proportional control" in paragraph(study.section, "E3")
    changed = history.model_copy(update={"versus": history.arm | {"target": 0.9}})
    assert "it adds" not in edited(study, "E3", differences=(changed,))
    kind = Difference(key="adaptation.kind", versus="cost_aware", arm="dynamic")
    lost = Difference(key="adaptation.margin", versus=0.1, arm=None)
    text = edited(study, "E3", differences=(kind, lost, history))
    assert "it adds" not in text
    assert r"\texttt{adaptation.margin} (from \texttt{0.1} to \texttt{none})" in text


def test_what_stands_in_for_the_baseline_is_not_called_it(render):
    setup = render(crashed=("baseline",)).section.split(r"\paragraph{SDTP.}")[1].split(r"\paragraph")[0]
    assert "The baseline prunes" not in setup
    assert "The scorer of the baseline" not in setup
    assert "As the baseline has no result, A2 stands for the protocol: it prunes" in setup


def test_lines_that_a_panel_has_no_room_for_are_counted(study):
    assert "highest of" not in study.section
    more = [study.summary.row("A7").model_copy(update={"id": f"R{place}"}) for place in range(5)]
    rows = (*study.summary.rows, *more)
    section = render_section(study.summary.model_copy(update={"rows": rows}), TEMPLATES)
    assert "Left: the six highest of eight keep ratios." in section
    assert "Right: the first" not in section
