"""Times of what was done, read from Snakemake's benchmark files and from blocks."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.core.panel import Entry, PanelFile
from ablations.study.planning.stages import DECODE, EVALUATE_SDTP, TEXT, TRAIN_PRUNER
from ablations.study.timings import PastTimes, item_times, seconds_by_digest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def benchmark(rule: str, digest: str, seconds: float) -> None:
    write(f"benchmarks/{rule}/{digest}.tsv", f"s\tmax_rss\n{seconds}\t1\n")


def block(digest: str, first: int, end: int, seconds: float, module: str, **spec) -> None:
    content = {"module": module, "spec": spec, "environment": {"seconds": seconds}}
    write(f"results/block/{digest}/{first}-{end}.json", json.dumps(content))


def entry(digest: str, *spans: tuple[int, int]) -> Entry:
    return Entry(digest=digest, label=digest, out=f"results/block/{digest}", spans=spans)


def panel(stage, *entries: Entry) -> PanelFile:
    return PanelFile(rule=stage.rule, module=stage.module, entries=entries)


def ran(stage, digest: str, seconds: float, *entries: Entry) -> None:
    """A finished panel."""
    write(f"results/panel/{digest}.json", panel(stage, *entries).model_dump_json())
    benchmark(stage.rule, digest, seconds)


def planned(stage, *entries: Entry, **spec):
    """A panel that is to run; of one kind of series."""
    job = SimpleNamespace(stage=stage, spec=SimpleNamespace(model_dump=lambda mode: spec))
    return SimpleNamespace(stage=stage, file=panel(stage, *entries), jobs=[job] * len(entries))


def test_seconds_are_those_of_the_last_run():
    write("benchmarks/decode/aa.tsv", "s\tmax_rss\n9.5\t1\n2.5\t-\n")
    assert seconds_by_digest("decode") == {"aa": 2.5}
    assert seconds_by_digest("evaluate") == {}


@pytest.mark.parametrize("text", ["", "s\tmax_rss\n"])
def test_a_file_without_rows_is_skipped(text):
    write("benchmarks/decode/aa.tsv", text)
    assert seconds_by_digest("decode") == {}


def test_time_for_an_item_is_that_of_the_last_block():
    block("aa", 0, 10, 100.0, EVALUATE_SDTP.module, measure="text")
    block("aa", 10, 14, 8.0, EVALUATE_SDTP.module, measure="text")
    block("bb", 0, 2, 3.0, DECODE.module)
    write("results/block/cc/0-2.json", "{")
    times = {digest: (time.kind, time.seconds) for digest, time in item_times().items()}
    assert times == {"aa": ((EVALUATE_SDTP.module, "text"), 2.0), "bb": ((DECODE.module, ""), 1.5)}


def test_a_panel_of_series_takes_its_items_and_what_past_ones_took_besides():
    block("aa", 0, 10, 20.0, EVALUATE_SDTP.module, measure="text")
    block("bb", 0, 5, 25.0, EVALUATE_SDTP.module, measure="prefill")
    ran(EVALUATE_SDTP, "p1", 75.0, entry("aa", (0, 10)), entry("bb", (0, 5)))
    # What is left of a panel whose blocks are gone says nothing.
    ran(EVALUATE_SDTP, "p2", 5000.0, entry("gone", (0, 10)))
    past = PastTimes()
    assert past.panel(planned(EVALUATE_SDTP, entry("new", (0, 3)), measure="text")) == 30 + 3 * 2
    assert past.panel(planned(EVALUATE_SDTP, entry("new", (0, 3), (8, 9)), measure="prefill")) == 30 + 4 * 5
    assert past.panel(planned(EVALUATE_SDTP, entry("new", (0, 3)), measure="retrieval")) is None
    assert past.panel(planned(DECODE, entry("new", (0, 3)))) is None


def test_jobs_that_shared_a_process_took_a_part_of_it_each():
    ran(TRAIN_PRUNER, "p1", 60.0, entry("aa"), entry("bb"))
    ran(TRAIN_PRUNER, "p2", 20.0, entry("cc"))
    benchmark(TEXT.rule, "dd", 7.0)
    past = PastTimes()
    assert past.panel(planned(TRAIN_PRUNER, entry("ee"), entry("ff"), entry("gg"))) == 75.0
    assert past.job(SimpleNamespace(stage=TEXT)) == 7.0
    assert past.job(SimpleNamespace(stage=DECODE)) is None
