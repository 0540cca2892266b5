"""Tables: cells from the summary only, nothing left out, the same bytes every time."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recompute_cells import check

from ablations.evidence.expectations import Experiment
from ablations.paper.tables import MAIN_ROWS, write_tables
from ablations.paper.vocabulary import outcome, predicted
from tests.paper.conftest import TEMPLATES
from tests.paper.design import WHOLE
from tests.paper.synthetic_decoding import DYNATREE, SHARED


def test_an_independent_recomputation_agrees(study):
    checker = check(study.plan, study.tables)
    assert checker.problems == []
    assert checker.cells > 90


def test_the_recomputation_agrees_on_the_whole_design(whole):
    checker = check(whole.plan, whole.tables)
    assert checker.problems == []
    assert checker.cells > 1400


def test_the_recomputation_notices_a_changed_cell_anywhere(whole, tmp_path):
    shutil.copytree(whole.tables, tmp_path / "tables")
    changes = {
        "decisions.tex": ("& 15 & yes", "& 15 & open"),
        "sdtp_matrix.tex": ("T~$\\downarrow$: yes", "T~$\\downarrow$: open"),
        "sdtp_effects.tex": ("$+0.585$", "$+0.586$"),
        "sdtp_quality.tex": ("14/40 (38)", "15/40 (38)"),
        "sdtp_cost.tex": ("$98.6$\\,G", "$98.7$\\,G"),
        "sdtp_ranking.tex": ("$0.64$", "$0.65$"),
        "sdtp_pipeline.tex": ("$195$\\,KiB", "$196$\\,KiB"),
        "sweep.tex": ("$1.5\\%$", "$1.6\\%$"),
        "grid.tex": ("$2.10$", "$2.11$"),
        "decoding_adaptation.tex": ("$1.09\\times$", "$1.10\\times$"),
        "decoding_drafter.tex": ("$0.84\\times$", "$0.11\\times$"),
        "decoding_neural.tex": ("$0.95\\times$", "$0.11\\times$"),
        "decoding_kinds.tex": ("$0.600$\\,s", "$0.601$\\,s"),
        "decoding_clocks.tex": ("[-4.7,\\,", "[-4.8,\\,"),
        "decoding_rounds.tex": ("$84.8\\%$", "$84.9\\%$"),
    }
    for table, (before, after) in changes.items():
        path = tmp_path / "tables" / table
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))
    problems = check(whole.plan, tmp_path / "tables").problems
    assert sorted(problem.split()[0] for problem in problems) == sorted(changes)


def test_the_recomputation_notices_a_changed_cell(study, tmp_path):
    shutil.copytree(study.tables, tmp_path / "tables")
    path = tmp_path / "tables" / "decoding.tex"
    path.write_text(path.read_text().replace("$0.21\\times$", "$0.25\\times$"))
    assert len(check(study.plan, tmp_path / "tables").problems) == 1


def test_the_recomputation_notices_a_changed_interval(study, tmp_path):
    shutil.copytree(study.tables, tmp_path / "tables")
    path = tmp_path / "tables" / "sdtp_matrix.tex"
    shown = study.summary.comparison("A6", "baseline", "text").estimate
    text = path.read_text()
    assert f"[{shown.low:.3f}" in text
    path.write_text(text.replace(f"[{shown.low:.3f}", f"[{shown.low - 0.05:.3f}"))
    assert len(check(study.plan, tmp_path / "tables").problems) == 1


@pytest.mark.parametrize(
    "peculiarities",
    [
        {"missing": ("A2", "F3")},
        {"crashed": ("baseline", "F2")},
        {"missing": ("F4",), "crashed": ("A7",)},
        {"documents": 2},
        {"documents": 1},
        {"settings": {"main": ("baseline", "A7")}},
        {
            "settings": {
                "looks": (
                    {"documents": 20, "retrieval": 20, "alpha": 0.01},
                    {"documents": 40, "retrieval": 40, "alpha": 0.04},
                )
            }
        },
        {"settings": {"confirmatory": {}}},
        {"replayed": False},
    ],
)
def test_odd_studies_agree_too(render, peculiarities):
    study = render(**peculiarities)
    checker = check(study.plan, study.tables)
    assert checker.problems == []
    assert checker.cells > 40


def test_rows_without_a_result_stay_in_the_tables(render):
    study = render(missing=("A2",), crashed=("F3",))
    assert "not run" in line_after(study.table("sdtp_matrix.tex"), "% A2:", 6)
    assert "crashed" in line_after(study.table("decoding.tex"), "% F3:", 1)


def test_the_full_method_is_bold_and_labels_are_stable(study):
    forward = study.table("decoding.tex")
    assert r"\label{tab:ablation}" in forward
    assert r"\textbf{\boldmath F4}" in forward
    assert r"\textbf{\boldmath F3}" not in forward
    assert r"\label{tab:ablation-backward}" in study.table("decoding_backward.tex")
    assert r"\label{tab:sdtp-matrix}" in study.table("sdtp_matrix.tex")


def test_rows_outside_the_main_table_follow_in_another(render):
    study = render(settings={"main": ("baseline", "A7")})
    main, further = study.table("sdtp_matrix.tex"), study.table("sdtp_further.tex")
    assert r"Table~\ref{tab:sdtp-further}" in main
    assert "% A7:" in main
    assert "% A2:" in further
    assert "% A7:" not in further


def test_more_rows_than_a_page_holds_go_to_the_appendix(render):
    study = render(design=WHOLE, missing=tuple(WHOLE))
    main, further = study.table("sdtp_matrix.tex"), study.table("sdtp_further.tex")
    # In the order of the sections, which is not that of the configuration.
    ids = [row.id for row in study.summary.rows if row.method == "sdtp"]
    assert set(ids) == set(WHOLE)
    assert [name for name in ids if f"% {name}:" in main] == ids[:MAIN_ROWS]
    assert [name for name in ids if f"% {name}:" in further] == ids[MAIN_ROWS:]


def test_a_table_without_rows_is_empty(study):
    for name in ("sdtp_further.tex", "sdtp_pipeline.tex", "sweep.tex", "grid.tex"):
        lines = [line for line in study.table(name).splitlines() if line and not line.startswith("%")]
        assert lines == []


def test_decoding_rows_stand_in_the_table_of_their_section(study):
    for name, rows in {
        "adaptation": ["F4", "E2", "E3", "O1"],
        "drafter": ["F4", "PL"],
        "neural": ["N1", "N3"],
        "further": ["F4", "X1"],
    }.items():
        assert re.findall(r"^    % (\w+):", study.table(f"decoding_{name}.tex"), re.M) == rows


def test_records_that_rows_share_stand_in_the_tables_by_kind_once(study):
    rows = re.findall(r"^    % (\w+):", study.table("decoding_kinds.tex"), re.M)
    ids = [row.id for row in study.summary.rows if row.method == "dynatree"]
    assert set(ids) == set(DYNATREE)
    assert rows == [name for name in ids if name not in SHARED]
    drafting = re.findall(r"^    % (\w+):", study.table("decoding_rounds.tex"), re.M)
    assert drafting == [name for name in rows if name != "F1"]


@pytest.mark.parametrize("table", ["decoding_kinds.tex", "decoding_clocks.tex", "decoding_rounds.tex"])
def test_no_page_ends_between_the_kinds_of_an_arm(study, table):
    *_, lines = study.table(table).partition(r"\endlastfoot")
    arms = [re.findall(r"\\\\\*?$", arm, re.M) for arm in re.split(r"^    % .*", lines, flags=re.M)[1:]]
    assert any(len(ends) > 1 for ends in arms)
    assert all(ends == [r"\\*"] * (len(ends) - 1) + [r"\\"] for ends in arms)


def test_prompts_are_timed_and_replayed_ones(study, render):
    def cell(study, table, name):
        return re.search(rf"^    (?:\\textbf{{\\boldmath )?{name}\b.*$", study.table(table), re.M)[0].split(
            " & "
        )[3]

    for name, prompts in {"F1": "15", "F2": "15/60", "F3": "6/60", "F4": "15/60"}.items():
        assert cell(study, "decoding.tex", name) == prompts
    assert cell(study, "decoding_clocks.tex", "F4") == "15/60 (1)"
    assert "Fewer timed prompts: F3 (6 of 15);" in study.table("decoding_column.tex")
    timed = render(replayed=False)
    assert cell(timed, "decoding.tex", "F2") == cell(timed, "decoding_clocks.tex", "F2") == "60"
    assert "replayed" not in timed.table("decoding.tex")
    assert "Fewer timed prompts: F3 (6 of 60);" in timed.table("decoding_column.tex")


def test_every_prediction_of_decoding_stands_with_its_row(study):
    tables = "".join(path.read_text() for path in study.tables.glob("decoding*.tex"))
    for row in study.summary.rows:
        if row.method == "dynatree" and row.parts:
            bold = r"\textbf{\boldmath " + row.id + "} &"
            lines = [line for line in tables.splitlines() if line.strip().startswith((f"{row.id} &", bold))]
            codes = [f"{predicted(part)}{': ' * bool(outcome(part))}{outcome(part)}" for part in row.parts]
            assert any(r"\ablationoutcomes{" + r"\\".join(codes) + "}" in line for line in lines)


def test_every_prediction_has_a_line_of_its_own(study):
    lines = study.table("decisions.tex").partition(r"\endlastfoot")[2].splitlines()
    shown = [line for line in lines if line.endswith(r" \\")]
    parts = [part for row in study.summary.rows for part in row.parts]
    assert len(shown) == len(parts)
    for line, part in zip(shown, parts, strict=True):
        assert line.split(" & ")[2].startswith(predicted(part))
        assert line.endswith(rf"& {outcome(part)} \\")
    assert "Look" not in study.table("decisions.tex")


def test_an_experiment_added_to_the_plan_is_in_the_table(render):
    added = Experiment(
        id="A10",
        method="sdtp",
        title="Keep ratio 0.6",
        section="ratio",
        change={"schedule": {"keep_ratio": 0.6}},
        versus="baseline",
        records=("nowhere.json",),
    )
    assert "Keep ratio 0.6" in render(extra=(added,)).table("sdtp_matrix.tex")


def test_the_same_summary_gives_the_same_bytes(study, tmp_path):
    write_tables(study.summary, TEMPLATES, tmp_path)
    for path in study.tables.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_recomputation_runs_as_a_script(study):
    script = Path(__file__).with_name("recompute_cells.py")
    done = subprocess.run(
        [sys.executable, script, "--plan", study.plan, "--tables", study.tables],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "0 disagree" in done.stdout


def line_after(text: str, start: str, count: int) -> str:
    lines = text.splitlines()
    place = next(i for i, line in enumerate(lines) if line.strip().startswith(start))
    return " ".join(lines[place : place + count + 1])
