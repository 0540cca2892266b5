"""The evaluation over two ranks, against the same arm in a single process."""

import json
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.record import read_record
from ablations.lm.checkpoint import load_model
from ablations.lm.device import available_cores
from ablations.sdtp.evaluate_pipeline import evaluate_pipeline
from ablations.sdtp.evaluation.heldout import heldout_windows
from ablations.sdtp.evaluation.report import SdtpRecord
from ablations.specs.sdtp.evaluate import EvaluateSpec
from tests.sdtp.naive import naive_logits

# The workspace's model has five layers, so that the second rank begins at layer 3, where a stage lies.
RANKS = {"ranks": 2, "prune": "before"}
STATE = 64 * 4
"""Bytes of one token's state."""


def over_ranks(workspace, name: str, **change) -> SdtpRecord:
    change = {"pipeline": RANKS, "retrieval": None} | change
    out = workspace.folder / f"{name}.json"
    evaluate_pipeline(Run(read_job(workspace.spec_file("evaluate", change, {}), EvaluateSpec), out, name))
    return read_record(out, SdtpRecord)


def kept(workspace, name: str) -> list[list[int]]:
    lines = (workspace.folder / f"{name}.rows.jsonl").read_text().splitlines()
    return [json.loads(line)["kept"] for line in lines]


def assert_same_results(workspace, piped: SdtpRecord, single: SdtpRecord) -> None:
    assert kept(workspace, piped.label) == kept(workspace, "single")
    for sample, expected in zip(piped.samples, single.samples, strict=True):
        assert sample.nll == pytest.approx(expected.nll, abs=1e-6)
        assert sample.kl == pytest.approx(expected.kl, abs=1e-6)
        assert (sample.agreement, sample.living) == (expected.agreement, expected.living)
        assert sample.reference_nll == expected.reference_nll
    for cost in ("prefill_flops", "reference_prefill_flops", "kv_bytes", "reference_kv_bytes", "training"):
        assert getattr(piped.totals, cost) == getattr(single.totals, cost)


@pytest.mark.skipif(len(available_cores()) < 2, reason="two ranks on one core are not timed")
def test_pruned_before_the_boundary_only_survivors_cross(workspace):
    single = workspace.evaluate("single.json", timing=None)
    piped = over_ranks(workspace, "before")
    assert_same_results(workspace, piped, single)
    assert piped.samples[0].living == (48, 34, 34, 24, 24)
    for sample in piped.samples:
        assert sample.boundary_bytes == (24 * STATE,)
        assert sample.reference_boundary_bytes == (48 * STATE,)
    assert [len(sample.pairs) for sample in piped.samples] == [2, 2, 0, 0]
    assert [len(sample.ranks) for sample in piped.samples] == [2, 2, 0, 0]
    for sample in piped.samples[:2]:
        first, second = sample.ranks
        # The pair and the first rank's times come from the same clock.
        assert first.busy + first.idle == pytest.approx(sample.pairs[-1].arm)
        assert min(first.busy, first.idle, second.busy, second.idle) > 0
    assert piped.totals.retrieval == ()
    assert piped.totals.peak_memory_bytes > 10**8


def test_pruned_after_the_boundary_all_living_tokens_cross_under_torchrun(workspace):
    change = {"importance": "random", "positions": "packed", "seed": 3}
    single = workspace.evaluate("single.json", timing=None, **change)
    # With this many threads the ranks share cores: nothing is timed, and a line gives the reason.
    threads = len(available_cores())
    change |= {"pipeline": {"ranks": 2, "prune": "after"}, "retrieval": None}
    change |= {"compute": {"dtype": "float32", "threads": threads}}
    spec, out = workspace.spec_file("evaluate", change, {}), workspace.folder / "after.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "ablations.sdtp.evaluate_pipeline", "--spec", str(spec), "--out", str(out)]
    done = subprocess.run(
        [*command, "--label", "after"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    piped = read_record(out, SdtpRecord)
    assert_same_results(workspace, piped, single)
    assert {sample.boundary_bytes for sample in piped.samples} == {(34 * STATE,)}
    assert not any(sample.pairs or sample.ranks for sample in piped.samples)
    assert done.stderr.count(f"no times, only bytes: 2 ranks of {threads} thread(s)") == 1


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_ranks_continue_every_layer_after_its_own_prompt(workspace, positions):
    """Two ranks and a single process, against the naive float64 forward."""
    change = {"importance": "hidden_norm", "positions": positions, "timing": None}
    single = workspace.evaluate("single.json", **change)
    piped = over_ranks(workspace, "naive", **change)
    run = Run(read_job(workspace.spec_file("evaluate", change, {}), EvaluateSpec), workspace.folder, None)
    lm = load_model(run.job.path("model"), run.spec.compute, torch.device("cpu"))
    for window, *samples in zip(
        heldout_windows(run, run.spec.windows), single.samples, piped.samples, strict=True
    ):
        prompt, continuation = window.ids[:48], window.ids[48:]
        logits, alive = naive_logits(
            lm,
            lambda _, states: states.norm(dim=-1),
            prompt,
            continuation,
            [1, 3],
            (0.7, 0.7),
            2,
            4,
            positions,
        )
        nll = F.cross_entropy(logits[:-1], continuation).item()
        for sample in samples:
            assert sample.living == tuple(map(len, alive))
            assert sample.nll == pytest.approx(nll, abs=1e-5)


def test_after_needs_a_stage_on_a_boundary(workspace):
    with pytest.raises(UserError, match=r"schedule.layers \[1, 4\] .* boundary layers \[3\]"):
        over_ranks(workspace, "failed", layers=[1, 4], pipeline={"ranks": 2, "prune": "after"})
    assert not (workspace.folder / "failed.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": None}, "^pipeline: null"),
        ({"importance": "prior"}, r"spec\.importance: 'prior' does not run over pipeline ranks"),
        ({"mask": "soft"}, r"spec\.mask: 'soft'"),
        ({"propagation": "local"}, r"spec\.propagation: 'local'"),
        ({"selection": "top_p"}, r"spec\.selection: 'top_p'"),
        ({"positions": "stale"}, r"spec\.positions: 'stale' .* use original or packed"),
        ({"retrieval": {"tokens": 99, "depths": [0.5], "keys": 1}}, r"spec\.retrieval: passkeys"),
    ],
)
def test_what_ranks_do_not_support_is_refused(workspace, change, message):
    with pytest.raises(UserError, match=message):
        over_ranks(workspace, "refused", **change)
