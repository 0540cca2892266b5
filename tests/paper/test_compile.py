"""The paper compiles, with every reference defined and nothing wider than the page."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.paper.figures import write_figures
from ablations.paper.numbers import write_numbers
from ablations.paper.pdf import compile_pdf
from tests.paper.conftest import Study
from tests.paper.design import WHOLE

PAPER = Path(__file__).parents[2] / "paper"


def compiled(study: Study, paper: Path, document: str) -> str:
    """Compile a document with the section of a study in a folder; its log."""
    shutil.copytree(study.tables, paper / "tables")
    write_figures(study.summary, paper / "figures")
    (paper / "ablation.tex").write_text(study.section)
    write_numbers(study.summary, PAPER / "templates", paper / "numbers.tex", paper / "provenance.json")
    shutil.copy(PAPER / "references.bib", paper)
    (paper / "main.tex").write_text(document)
    command = ["latexmk", "-cd", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=paper, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return (paper / "main.log").read_text(errors="replace")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="TeX is not installed")
@pytest.mark.parametrize(
    "peculiarities",
    [
        {},
        {"missing": ("A2", "F3"), "crashed": ("A6", "F2"), "replayed": False},
        {"design": WHOLE, "lengths": (512, 1024, 2048, 4096), "grids": True},
        {
            "design": WHOLE,
            "missing": ("baseline", "GB", "A1", "F4"),
            "crashed": ("G1", "A3"),
            "settings": {"main": ("A8",), "provenance": True},
        },
    ],
    ids=["small", "small mixed", "whole", "whole mixed"],
)
def test_the_paper_compiles(render, tmp_path, peculiarities):
    study = render(**peculiarities)
    paper = tmp_path / "paper"
    log = compiled(study, paper, (PAPER / "main.tex").read_text())
    assert "undefined" not in log
    assert "Overfull" not in log
    assert (paper / "main.pdf").stat().st_size > 50_000
    script = Path(__file__).with_name("recompute_numbers.py")
    command = [sys.executable, script, "--provenance", paper / "provenance.json", "--pdf", paper / "main.pdf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^(\d+) numbers recomputed, \1 of them found in the PDF", done.stdout)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="TeX is not installed")
def test_a_two_column_document_has_its_long_tables_in_one_column(render, tmp_path):
    study = render(settings={"width": "column"})
    document = (PAPER / "main.tex").read_text().replace("[11pt]{article}", "[twocolumn]{article}")
    asking = r"\makeatletter\if@twocolumn\typeout{two again}\fi\makeatother"
    document = document.replace(r"\bibliographystyle", f"{asking}\n\\bibliographystyle")
    log = compiled(study, tmp_path / "paper", document)
    assert "undefined" not in log
    assert "multiply defined" not in log
    assert "two again" in log


def test_without_tex_the_error_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs latexmk"):
        compile_pdf(PAPER / "main.tex", tmp_path / "ablation.pdf")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="TeX is not installed")
def test_a_latex_error_is_named_and_leaves_no_pdf(tmp_path, capsys):
    document = tmp_path / "main.tex"
    document.write_text("\\documentclass{article}\\begin{document}\\nosuchcommand\\end{document}")
    with pytest.raises(UserError, match=r"main\.tex:1: Undefined control sequence"):
        compile_pdf(document, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["main.tex"]
