"""The results page: everything in one file, and it works in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.core.panel import Entry, PanelFile
from ablations.evidence.inputs import PaperInput
from ablations.paper.page import page_data, render_page
from tests.paper.conftest import TEMPLATES, Study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOG = "first\rsecond\rlast <b>of</b> the bar\nthe end </script><script>alert(1)</script>\n"


@pytest.fixture(scope="module")
def mixed(render) -> Study:
    return render(missing=("A2",), crashed=("A6",))


@pytest.fixture(scope="module")
def page(mixed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_panel(Path(mixed.summary.row("A7").files[0].path), folder / "logs")
    plan = PaperInput.model_validate_json(mixed.plan.read_bytes())
    data = page_data(mixed.summary, plan, folder / "logs")
    (folder / "results.html").write_text(render_page(data, TEMPLATES))
    return folder / "results.html"


def write_panel(record: Path, logs: Path) -> None:
    """The spec of a record, the panel that measured its series, and the panel's log."""
    spec = json.loads(record.read_text())["spec"]
    job = {"digest": record.stem, "module": "m", "spec": spec, "spec_digest": "s", "code_digest": "c"}
    results = record.parent.parent
    (results / "spec").mkdir()
    (results / "spec" / record.name).write_text(json.dumps(job | {"input_digests": {"text": "series"}}))
    entries = (Entry(digest="series", label="A7", out="o"), Entry(digest="another", label="A9", out="o"))
    panel = PanelFile(rule="evaluate_sdtp", module="m", entries=entries)
    (results / "panel").mkdir()
    (results / "panel" / "shared.json").write_text(panel.model_dump_json())
    for name, text in (("evaluate_sdtp/shared.log", LOG), ("join_record/A9.log", "joined")):
        (logs / name).parent.mkdir(parents=True)
        (logs / name).write_text(text)


def data_of(page: Path) -> dict:
    text = page.read_text().split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return json.loads(text)


def test_every_experiment_is_there_with_what_it_is_made_of(page, mixed):
    rows = {row["id"]: row for row in data_of(page)["rows"]}
    assert list(rows) == [row.id for row in mixed.summary.rows]
    one = rows["A7"]
    for measure in ("text", "retrieval"):
        effect = mixed.summary.comparison("A7", "baseline", measure).estimate
        assert one[measure]["value"] == effect.value
    assert data_of(page)["decided"] == [*mixed.summary.decided]
    ((key, before, after),) = one["differences"]
    assert key == "keep_ratios"
    assert before != after
    record = json.loads(Path(mixed.summary.row("A7").files[0].path).read_text())
    assert [row[0] for row in one["prompts"]["rows"]] == [row["document"] for row in record["samples"]]
    (log,) = one["logs"]
    assert log.endswith("logs/evaluate_sdtp/shared.log")
    text = data_of(page)["logs"][log]
    assert text.endswith("last <b>of</b> the bar\nthe end </script><script>alert(1)</script>")
    assert "second" not in text
    assert [Path(path).name for path in rows["A9"]["logs"]] == ["A9.log"]
    assert rows["A5"]["logs"] == []
    assert rows["A2"]["status"] == "not run"
    assert rows["A6"]["crash"].startswith("RuntimeError: ")


def test_prompts_of_decoding_are_those_that_were_replayed(page, mixed):
    """Of a prompt that was not timed the page has no measured speed and no exactness."""
    row = next(row for row in data_of(page)["rows"] if row["id"] == "F4")
    record = json.loads(Path(mixed.summary.row("F4").files[0].path).read_text())
    replays, (columns, prompts) = record["totals"]["replays"], row["prompts"].values()
    shown = [dict(zip(columns, values, strict=True)) for values in prompts]
    assert [item["prompt"] for item in shown] == [replay["document"] for replay in replays]
    one = replays[-1]
    price = (one["reference_first"] + one["reference_rounds"]) / (one["first"] + one["rounds"])
    assert shown[-1]["priced speed-up"] == round(price, 3)
    assert (shown[-1]["speed-up"], shown[-1]["exact"]) == (None, None)
    timed = [item for item in shown if item["speed-up"] is not None]
    assert [(item["kind"], item["prompt"]) for item in timed] == [
        (sample["kind"], sample["document"]) for sample in record["samples"]
    ]
    assert {item["exact"] for item in timed} == {"yes"}


def test_each_outcome_names_its_prediction(page):
    rows = {row["id"]: row for row in data_of(page)["rows"]}
    assert rows["A7"]["parts"][0] == "text down, confirmatory: as expected"
    assert rows["A7"]["outcomes"] == ["text: as expected", "retrieval: as expected", "speed: as expected"]
    assert [part.partition(",")[0] for part in rows["F4"]["parts"]] == [
        "exact same",
        "speed up strong",
        "above F2",
    ]
    assert rows["A9"]["parts"][0] == "text up, exploratory"
    assert rows["A9"]["outcomes"] == []
    assert rows["A6"]["parts"][0] == "text down strong, confirmatory: crashed"


def test_the_page_needs_no_network(page):
    text = page.read_text().split('id="data"')[0] + page.read_text().split("</script>", 1)[1]
    assert not re.search(r"(?:src|href)=|@import|url\(|fetch\(|https?://", text)
    assert page.read_text().count("<script") == 2


def test_the_same_study_gives_the_same_page(page, mixed):
    plan = PaperInput.model_validate_json(mixed.plan.read_bytes())
    data = page_data(mixed.summary, plan, page.parent / "logs")
    assert render_page(data, TEMPLATES) == page.read_text()


def test_a_record_that_was_damaged_since_is_named(render, tmp_path):
    study = render(missing=("A2",))
    plan = PaperInput.model_validate_json(study.plan.read_bytes())
    Path(study.summary.row("A7").files[0].path).write_text("{")
    with pytest.raises(UserError, match=r"A7\.json: damaged"):
        page_data(study.summary, plan, tmp_path)


def browse(page: Path, query: str) -> str:
    """The document as a headless browser has it after the script ran."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={page.parent}/profile",
    ]
    command += ["--virtual-time-budget=4000", "--dump-dom", f"{page.as_uri()}{query}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_sorts_filters_and_opens(page, mixed):
    def shown(dom: str) -> list[str]:
        return re.findall(r'<tr class="experiment[^"]*" id="([^"]+)"', dom)

    every = browse(page, "")
    assert shown(every) == [row.id for row in mixed.summary.rows]
    assert 'class="details"' not in every
    ranked = shown(browse(page, "?method=SDTP&sort=-text"))
    effects = {row["id"]: row["text"] for row in data_of(page)["rows"]}
    measured = [effects[name]["value"] for name in ranked if effects[name]]
    assert measured == sorted(measured, reverse=True)
    assert all(effects[name] for name in ranked[: len(measured)])
    opened = browse(page, "?search=A7#A7")
    assert shown(opened) == ["A7"]
    for part in (
        "Spec against baseline",
        "Per prompt",
        "Numbers",
        "A7.text_effect",
        "evaluate_sdtp/shared.log",
    ):
        assert part in opened
    assert "<script>alert(1)" not in opened


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_click_opens_an_experiment_and_sorts_a_column(page, tmp_path):
    clicks = (
        "document.getElementById('A7').click(); document.querySelectorAll('#matrix thead button')[3].click();"
    )
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", f"<script>{clicks}</script></body>"))
    dom = browse(clicked, "")
    assert dom.count('class="details"') == 1
    assert 'aria-sort="ascending"' in dom
