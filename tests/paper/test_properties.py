"""Whatever the records say: LaTeX that holds together, or one line that names the record."""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from ablations.core.errors import UserError
from ablations.evidence.inputs import PaperInput
from ablations.paper.collect import summarise
from ablations.paper.figures import write_figures
from ablations.paper.numbers import write_numbers
from ablations.paper.pdf import compile_pdf
from ablations.paper.section import render_section
from ablations.paper.tables import write_tables
from tests.paper.conftest import TEMPLATES
from tests.paper.synthetic import write_study

PAPER = TEMPLATES.parent
ODD = st.sampled_from([0.0, -0.0, 1e-300, 1e-9, -3.5, 1e9, 1e200, -1e308, float("nan"), float("inf")])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
# What LaTeX's input encoding knows; other scripts need a font of their own.
LATIN = st.text(st.characters(max_codepoint=0x17F, exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
STATES = ("as is", "missing", "crashed", "odd", "truncated")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> PaperInput:
    folder = tmp_path_factory.mktemp("base")
    plan = write_study(folder, documents=5)
    return PaperInput.model_validate_json(plan.read_bytes())


def numbers_of(content: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all numbers in a record's samples and totals."""
    if isinstance(content, dict):
        return [found for key, value in content.items() for found in numbers_of(value, (*path, key))]
    if isinstance(content, list):
        return [found for key, value in enumerate(content) for found in numbers_of(value, (*path, key))]
    return [path] if isinstance(content, int | float) and not isinstance(content, bool) else []


def edited(text: str, state: str, draw) -> str:
    """A record's text after what `state` does to it."""
    record = json.loads(text)
    if state == "truncated":
        return text[: draw(st.integers(0, len(text) - 2))]
    if state == "crashed":
        record |= {"samples": [], "totals": None}
        record["outcome"] = {
            "status": "crashed",
            "exception": draw(LATIN),
            "message": draw(LATIN),
            "place": draw(LATIN),
        }
        return json.dumps(record)
    places = [(name, *path) for name in ("samples", "totals") for path in numbers_of(record[name])]
    for *path, last in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        inner = record
        for key in path:
            inner = inner[key]
        inner[last] = draw(ODD)
    return json.dumps(record)


@st.composite
def studies(
    draw, base: PaperInput, folder: Path, names: st.SearchStrategy = NAMES
) -> tuple[PaperInput, set[str]]:
    """A plan whose experiments have odd names and edited records, and the paths of the edited ones."""
    touched, experiments = set(), []
    chosen = draw(
        st.dictionaries(
            st.sampled_from([item.id for item in base.experiments]), st.sampled_from(STATES), max_size=5
        )
    )
    for item in base.experiments:
        state = chosen.get(item.id, "as is")
        update: dict[str, Any] = {}
        if state != "as is":
            update = {"title": draw(names), "hypothesis": draw(names), "section": draw(names)}
            path = folder / f"{item.id}.json"
            path.unlink(missing_ok=True)
            if state != "missing":
                path.write_text(edited(Path(item.records[0]).read_text(), state, draw))
            update["records"] = (str(path), *item.records[1:])
            touched.add(str(path))
        experiments.append(item.model_copy(update=update))
    note(f"{chosen}")
    return base.model_copy(update={"experiments": tuple(experiments)}), touched


def holds_together(latex: str) -> None:
    """Braces and dollar signs pair up, and nothing that is no number is printed as one."""
    text = re.sub(r"\\[{}$%&#_]", "", latex)
    text = re.sub(r"(?<!\\)%.*", "", text)
    assert text.count("{") == text.count("}")
    assert text.count("$") % 2 == 0
    assert not re.search(r"\$[+-]?(?:nan|inf)|\bNone\b(?! )", text)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_records_give_latex_or_one_line(base, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("records")
    plan, touched = data.draw(studies(base, folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            summary = summarise(plan)
    except UserError as error:
        assert "\n" not in str(error)
        assert any(path in str(error) for path in touched), str(error)
        return
    holds_together(render_section(summary, TEMPLATES))
    write_tables(summary, TEMPLATES, folder / "tables")
    for path in (folder / "tables").iterdir():
        holds_together(path.read_text())
    write_numbers(summary, TEMPLATES, folder / "numbers.tex", folder / "provenance.json")
    holds_together((folder / "numbers.tex").read_text().split("ablationinterval}[1]", 1)[1])
    write_figures(summary, folder / "figures")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="TeX is not installed")
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_records_compile_or_are_named(base, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("paper")
    plan, _ = data.draw(studies(base, folder, LATIN))
    try:
        summary = summarise(plan)
    except UserError:
        return
    write_tables(summary, TEMPLATES, folder / "tables")
    write_figures(summary, folder / "figures")
    write_numbers(summary, TEMPLATES, folder / "numbers.tex", folder / "provenance.json")
    (folder / "ablation.tex").write_text(render_section(summary, TEMPLATES))
    for name in ("main.tex", "references.bib"):
        shutil.copy(PAPER / name, folder)
    compile_pdf(folder / "main.tex", folder / "ablation.pdf")
    assert (folder / "ablation.pdf").stat().st_size > 20_000
