"""An evaluation shared by several jobs says what one job alone would have said."""

import argparse

import pytest

from ablations.sdtp.evaluate import evaluate
from ablations.sdtp.evaluation.report import SdtpRecord
from ablations.sdtp.evaluation.shards import Shard, join
from ablations.study.contracts.sdtp import EvaluateSpec
from ablations.study.errors import UserError
from ablations.study.job import Run, read_job
from ablations.study.record_io import read_record, read_rows, write_record


@pytest.fixture
def shared(workspace, tmp_path):
    """Runs an evaluation whole and in three shares; returns the paths of the whole and of the shares."""

    def run(**change):
        spec = workspace.spec_file("evaluate", change, {})
        job = read_job(spec, EvaluateSpec)
        paths = [tmp_path / f"{number}-of-3.json" for number in (1, 2, 3)]
        for number, path in enumerate(paths, start=1):
            evaluate(Run(job, path, "A"), Shard(number, 3))
        evaluate(Run(job, tmp_path / "whole.json", "A"))
        return Run(job, tmp_path / "joined.json", "A"), tmp_path / "whole.json", paths

    return run


def test_joined_shares_are_the_whole(shared):
    run, whole_path, paths = shared()
    join(run, paths)
    whole, joined = read_record(whole_path, SdtpRecord), read_record(run.out, SdtpRecord)
    assert [sample.model_dump(exclude={"pairs"}) for sample in joined.samples] == [
        sample.model_dump(exclude={"pairs"}) for sample in whole.samples
    ]
    assert [len(sample.pairs) for sample in joined.samples] == [len(sample.pairs) for sample in whole.samples]
    assert joined.totals.retrieval == whole.totals.retrieval
    assert joined.totals.prefill_flops == pytest.approx(whole.totals.prefill_flops)
    assert joined.totals.kv_bytes == pytest.approx(whole.totals.kv_bytes)
    assert read_rows(run.out, joined) == read_rows(whole_path, whole)


def test_a_crash_of_one_share_is_a_crash_of_all(shared):
    run, _, paths = shared(positions="stale")
    join(run, paths)
    assert read_record(run.out, SdtpRecord).outcome.status == "crashed"


def test_a_share_of_something_else_is_refused(shared):
    run, _, paths = shared()
    other = read_record(paths[1], SdtpRecord)
    digests = other.digests.model_copy(update={"job": "another"})
    write_record(paths[1], other.model_copy(update={"digests": digests}))
    with pytest.raises(UserError, match=r"2-of-3\.json: a share of another experiment"):
        join(run, paths)
    assert not run.out.exists()


@pytest.mark.parametrize("text", ["2", "0-of-3", "4-of-3", "a-of-b", "1-of-"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no share such as 2-of-4"):
        Shard.parse(text)


def test_shares_take_every_prompt_once():
    items = "abcdefg"
    taken = [pair for number in (1, 2, 3) for pair in Shard(number, 3).take(items)]
    assert sorted(taken) == list(enumerate(items))
