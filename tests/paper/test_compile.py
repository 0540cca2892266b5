"""The paper compiles, with every reference defined and nothing wider than the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ablations.paper.figures import write_figures

PAPER = Path(__file__).parents[2] / "paper"


@pytest.mark.full
@pytest.mark.skipif(shutil.which("latexmk") is None, reason="TeX is not installed")
@pytest.mark.parametrize(
    "peculiarities", [{}, {"missing": ("A2", "F3"), "crashed": ("A6", "F2")}], ids=["all", "mixed"]
)
def test_the_paper_compiles(render, tmp_path, peculiarities):
    study = render(**peculiarities)
    paper = tmp_path / "paper"
    shutil.copytree(study.tables, paper / "tables")
    write_figures(study.summary, paper / "figures")
    (paper / "ablation.tex").write_text(study.section)
    for name in ("main.tex", "references.bib"):
        shutil.copy(PAPER / name, paper)
    command = ["latexmk", "-cd", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "paper/main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (paper / "main.log").read_text(errors="replace")
    assert "undefined" not in log
    assert "Overfull" not in log
    assert (paper / "main.pdf").stat().st_size > 50_000
