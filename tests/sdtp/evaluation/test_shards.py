"""An evaluation in shards has the results of an evaluation in one job."""

import argparse

import pytest

from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.record import read_record, read_rows, write_record
from ablations.sdtp.evaluate import evaluate
from ablations.sdtp.evaluation.report import SdtpRecord
from ablations.sdtp.evaluation.shards import Shard, join
from ablations.specs.sdtp.evaluate import EvaluateSpec


@pytest.fixture
def sharded(workspace, tmp_path):
    """Runs an evaluation whole and in three shards; returns the paths of the whole and of the shards."""

    def run(**change):
        spec = workspace.spec_file("evaluate", change, {})
        job = read_job(spec, EvaluateSpec)
        paths = [tmp_path / f"{number}-of-3.json" for number in (1, 2, 3)]
        for number, path in enumerate(paths, start=1):
            evaluate(Run(job, path, "A"), Shard(number, 3))
        evaluate(Run(job, tmp_path / "whole.json", "A"))
        return Run(job, tmp_path / "joined.json", "A"), tmp_path / "whole.json", paths

    return run


def test_joined_shards_are_the_whole(sharded):
    run, whole_path, paths = sharded()
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


def test_a_crash_of_one_shard_is_a_crash_of_all(sharded):
    run, _, paths = sharded(positions="stale")
    join(run, paths)
    assert read_record(run.out, SdtpRecord).outcome.status == "crashed"


def test_a_shard_of_another_experiment_is_refused(sharded):
    run, _, paths = sharded()
    record = read_record(paths[1], SdtpRecord)
    digests = record.digests.model_copy(update={"job": "another"})
    write_record(paths[1], record.model_copy(update={"digests": digests}))
    with pytest.raises(UserError, match=r"2-of-3\.json: a shard of another experiment"):
        join(run, paths)
    assert not run.out.exists()


@pytest.mark.parametrize("text", ["2", "0-of-3", "4-of-3", "a-of-b", "1-of-"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no shard such as 2-of-4"):
        Shard.parse(text)


def test_shards_take_every_prompt_once():
    prompts = "abcdefg"
    numbered = [pair for number in (1, 2, 3) for pair in Shard(number, 3).take(prompts)]
    assert sorted(numbered) == list(enumerate(prompts))
