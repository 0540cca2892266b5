"""The section: what changes, how it was measured and what limits it, whatever came out."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from ablations.core.errors import UserError
from ablations.evidence.expectations import Experiment
from ablations.evidence.inputs import FamilyPlan
from ablations.paper import formatting, wording
from ablations.paper.numbers import all_quantities
from ablations.paper.rendering import render as render_template
from ablations.paper.section import LABELS, exactness, render_section
from ablations.paper.summary import Summary
from tests.paper.conftest import TEMPLATES
from tests.paper.design import SMALL, WHOLE
from tests.paper.synthetic_decoding import DYNATREE, SHARED

IDS = [*SMALL, *(name for name in DYNATREE if name not in SHARED)]


def told(section: str, name: str) -> str:
    """The line that the section has about one experiment."""
    (line,) = re.findall(rf"^\\textbf\{{{re.escape(name)}\}} .*$", section, re.M)
    return line


def test_every_experiment_stands_in_its_part_with_its_hypothesis(study):
    for row in study.summary.rows:
        line = told(study.section, row.id)
        assert wording.tex(row.hypothesis or "") in line
        assert ("against F4" in line) == (row.versus == "F4")


def test_what_is_decided_is_counted(study, render):
    parts = [part for row in study.summary.rows for part in row.parts if part.kind == "confirmatory"]
    resolved = [part for part in parts if part.outcome not in (None, "not_resolved")]
    assert 0 < len(resolved) < len(parts)
    assert f"Of {len(parts)} confirmatory predictions, {len(resolved)} are decided" in study.section
    assert f"The {len(parts)} confirmatory predictions" in study.section
    none = render(settings={"confirmatory": {}}).section
    assert "The study has no confirmatory predictions" in none
    assert "one family" not in none


def test_the_section_says_what_a_margin_means_and_when_data_were_looked_at(study, render):
    margin = formatting.percent_difference(study.summary.settings.thresholds.text_same)
    assert f"on text that the unpruned model writes, {margin} of perplexity" in study.section
    assert "as data grow" not in study.section
    looks = (
        {"documents": 20, "retrieval": 20, "alpha": 0.01},
        {"documents": 40, "retrieval": 40, "alpha": 0.04},
    )
    looked = render(settings={"looks": looks}).section
    assert r"at $1\%$ with the first 20 documents and 20 retrieval prompts and at $4\%$ with the" in looked
    assert "for these trainings" in study.section
    assert "for these trainings" not in render(missing=("baseline",)).section


def test_the_plan_of_the_family_is_told_with_what_changed_since(study):
    def appendix(**changes) -> str:
        family = FamilyPlan(digest="0123abcd", planned="2026-01-02", **changes)
        section = render_section(study.summary.model_copy(update={"family": family}), TEMPLATES)
        return section.split(r"\label{sec:ablation-predictions}")[1].split(r"\subsection")[0]

    assert r"(digest \texttt{0123abcd}) was written down on 2026-01-02, and nothing of it has" in appendix()
    changed = appendix(changed=("looks & more",))
    assert r"2026-01-02. Since then: looks \& more." in changed
    assert "was written down" not in study.section


def test_retrieval_and_training_windows_are_told(study):
    setup = study.section.split(r"\paragraph{SDTP.}")[1].split(r"\paragraph")[0]
    assert "to 40 prompts of 256 tokens" in setup
    assert "passkey, pairs, question first and definition prompts take turns" in setup
    assert "Wordings of training, validation and held-out prompts are disjoint." in setup
    assert "40 windows of 384 tokens, one per training document, and 40 retrieval prompts" in setup
    assert "The scorer was trained with three seeds, of which the first is timed." in setup


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


def test_the_section_says_what_is_timed_and_what_is_replayed(study, render):
    decoding = study.section.split(r"\paragraph{Decoding.}")[1].split(r"\paragraph")[0]
    assert r"Prompts are 20 of the kind \emph{code}" in decoding
    assert r"is \emph{replayed} on all 60 prompts" in decoding
    assert "Timed are the first five prompts of each kind, in arms with a smaller budget fewer," in decoding
    assert "at least six over all kinds" in decoding
    assert "where fewer than 15 prompts were timed" in decoding
    assert "Satterthwaite" in study.section
    timed = render(replayed=False).section
    assert r"Prompts are 20 of the kind \emph{code}" in timed
    for word in ("replayed", "Satterthwaite", "cochran", "estimated"):
        assert word not in timed.split(r"\label{sec:ablation-decoding-numbers}")[0]


def test_the_heading_level_is_a_setting(render):
    section = render(settings={"heading": "subsection"}).section
    assert r"\subsection{Ablation Studies}" in section
    assert r"\subsubsection{Experimental Setup}" in section
    assert r"\section{" not in section


def test_parts_come_in_the_order_of_the_design_however_they_are_configured(render):
    design = {name: WHOLE[name] for name in ("baseline", "C1", "A7", "M1", "A2", "A1s")}
    section = render(design=design).section
    found = re.findall(r"^\\textbf\{(\w+)\} ", section, re.M)
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
    for topic in ("Models", "Hardware", "Loops", "Length", "Measures"):
        assert rf"\emph{{{topic}.}}" in threats
    assert "Synthetic CPU @ 2.00GHz" in threats
    assert not re.search(r"\S\\emph\{(?:Hardware|Loops|Length|Measures)", threats)
    assert "No GPU was used" in threats
    assert "Of 60 replayed prompts at most 15 were timed" in threats
    assert "on average over its 60 prompts" in threats
    assert "Prices of grids were not timed" in whole.section
    assert "Prices of grids" not in threats
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
        assert all(link in linked.section for link in links)
    assert rf"\href{{../{linked.summary.row('A7').files[0].path}}}{{A7}}" in linked.table("sdtp_matrix.tex")
    assert "href" not in study.section


def test_a_crash_is_reported_with_its_exception(render):
    study = render(crashed=("A7",))
    assert r"raised \texttt{RuntimeError} in apply\_rotary\_pos\_emb" in told(study.section, "A7")
    # Its predictions are none that were decided, and keep their places in the family.
    parts = study.summary.row("A7").parts
    assert [(part.kind, part.outcome, part.reason) for part in parts] == [
        ("confirmatory", None, "crashed")
    ] * 3


def test_what_has_not_been_run_says_so(render):
    text = told(render(missing=("F2",)).section, "F2")
    assert text.endswith("It has not been run.")


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


def test_ties_and_departures_are_counted(study, render):
    # Four drafting rows are timed on 15 prompts, nine on six.
    assert "114 of 114 timed generations are identical" in study.section
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
        assert told(study.section, row.id)
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


def test_epochs_on_the_unpruned_model_are_told(study):
    content = study.summary.model_dump(mode="json")
    content["sdtp"]["training"]["pruner"]["warmup_epochs"] = 3
    told = render_section(Summary.model_validate(content), TEMPLATES)
    assert "after three epochs on the saliency losses alone and the states of the unpruned model" in told
    assert "the epochs on the unpruned model and the separate clipping depart" in told
    assert "saliency losses alone" not in study.section


def test_every_part_of_the_design_has_its_own_heading(whole):
    headings = re.findall(r"\\subsection\{(.*)\}", whole.section)
    assert len(headings) == len(set(headings)) == 23


def test_floats_without_their_part_stand_in_the_first(render):
    design = {name: WHOLE[name] for name in ("baseline", "A2", "GB")}
    design["GB"] = replace(design["GB"], section="elsewhere")
    section = render(design=design, lengths=(512,)).section
    first = section.split(r"\label{sec:ablation-baseline}")[1].split(r"\subsection")[0]
    for name in ("tables/sdtp_matrix", "tables/sdtp_ranking", "tables/sdtp_pipeline", "figures/sweep.pdf"):
        assert section.count(f"{{{name}}}") == 1
        assert f"{{{name}}}" in first
    assert "figures/keep_ratio.pdf" not in section


def test_grids_are_said_to_be_priced(whole, study):
    assert r"\emph{priced, not timed}" in whole.section
    for label in ("fig:grid", "fig:grid-trees", "fig:grid-lengths"):
        assert rf"\label{{{label}}}" in whole.section
    assert "Repetition and acceptance rise together" in whole.section
    assert r"\emph{priced, not timed}" not in study.section


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


def test_no_heading_promises_a_gpu(whole):
    assert not [line for line in re.findall(r"\\(?:sub)*section\{(.*)\}", whole.section) if "GPU" in line]


def test_arms_that_train_their_own_scorer_are_not_said_to_reuse_one(whole, study):
    assert "change the ratio or the protection reuse it, but for R9t." in whole.section
    assert "change the ratio or the protection reuse it. Its" in study.section


def test_a_text_ends_before_its_length_only_where_it_does(whole):
    full, points = whole.section, whole.summary.length_grid
    assert points[-1].new_tokens == points[-1].tokens
    assert "as some texts end before" not in full
    shorter = tuple(item.model_copy(update={"new_tokens": item.tokens - 9.0}) for item in points)
    section = render_section(whole.summary.model_copy(update={"length_grid": shorter}), TEMPLATES)
    assert "as some texts end before" in section
