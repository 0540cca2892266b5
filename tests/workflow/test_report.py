"""Snakemake's report and the results page of the tiny study, in a real browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import TINY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CAPTIONS = Path(__file__).parents[2] / "workflow/report"

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    study, out = finished.copy(folder / "study"), folder / "report.html"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--report", out, "--configfile", TINY]
    command += ["--", "paper/ablation.tex", "paper/results.html"]
    done = subprocess.run(command, cwd=study.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_everything_of_the_paper_and_every_record_is_in_the_report(report, finished):
    text = report.read_text()
    for category in ("Figures", "Tables", "Records", "Numbers", "Section"):
        assert f'"{category}"' in text
    for path in (*CAPTIONS.glob("figures/*.rst"), *CAPTIONS.glob("tables/*.rst")):
        assert path.stem.replace("_", " ") in text
    for record in (finished.path / "results/record").glob("*.json"):
        assert record.stem in text


def test_every_table_and_figure_has_a_caption(finished):
    for kind, pattern in (("figures", "*.png"), ("tables", "*.tex")):
        made = {path.stem for path in (finished.path / "paper" / kind).glob(pattern)}
        assert made == {path.stem for path in (CAPTIONS / kind).glob("*.rst")}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_both(report, finished, tmp_path):
    def dom(page: Path) -> str:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        command += ["--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout

    shown = re.sub(r"(?s)<script.*?</script>", "", dom(report))
    for category in ("Figures", "Records", "Tables"):
        assert category in shown
    page = dom(finished.path / "paper/results.html")
    assert page.count('<tr class="experiment') == page.count('"differences":')
