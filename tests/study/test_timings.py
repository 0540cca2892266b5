"""Times of finished jobs, read from Snakemake's benchmark files."""

import pytest

from ablations.study.timings import seconds_by_digest


def test_seconds_are_those_of_the_last_run_and_shards_add_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "benchmarks/decode"
    folder.mkdir(parents=True)
    (folder / "aa.tsv").write_text("s\tmax_rss\n9.5\t1\n2.5\t1\n")
    (folder / "bb.1.tsv").write_text("s\tmax_rss\n1.0\t1\n")
    (folder / "bb.2.tsv").write_text("s\tmax_rss\n2.0\t-\n")
    assert seconds_by_digest("decode") == {"aa": 2.5, "bb": 3.0}
    assert seconds_by_digest("evaluate") == {}


@pytest.mark.parametrize("text", ["", "s\tmax_rss\n"])
def test_a_file_without_rows_is_skipped(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks/decode").mkdir(parents=True)
    (tmp_path / "benchmarks/decode/aa.tsv").write_text(text)
    assert seconds_by_digest("decode") == {}
