"""The evaluation over two ranks, against the same arm in a single process."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.core.panel import Panel
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.device import available_cores
from ablations.sdtp.evaluate_pipeline import evaluate_pipeline
from ablations.sdtp.evaluation.heldout import Heldout
from ablations.specs.lm import Compute
from tests.sdtp.naive import naive_logits
from tests.sdtp.workspace import Evaluated

# The workspace's model has five layers, so that the second rank begins at layer 3, where a stage lies.
RANKS = {"ranks": 2, "prune": "before"}
AFTER = {"ranks": 2, "prune": "after"}
STATE = 64 * 4
"""Bytes of one token's state."""


def over_ranks(workspace, *measures: str, **change) -> Evaluated:
    change = {"pipeline": RANKS} | change
    return workspace.evaluate(*measures, name="ranks", work=evaluate_pipeline, **change)


def assert_same_results(piped: Evaluated, single: Evaluated) -> None:
    assert piped.quality.rows == single.quality.rows
    for sample, expected in zip(piped.samples, single.samples, strict=True):
        assert sample.nll == pytest.approx(expected.nll, abs=1e-6)
        assert sample.kl == pytest.approx(expected.kl, abs=1e-6)
        for name in ("agreement", "living", "reference_nll", "flops", "kv_bytes"):
            assert getattr(sample, name) == getattr(expected, name)
    for name in ("reference_prefill_flops", "reference_kv_bytes", "training", "keep_ratios"):
        assert getattr(piped.totals, name) == getattr(single.totals, name)


@pytest.mark.skipif(len(available_cores()) < 2, reason="two ranks on one core are not timed")
def test_pruned_before_the_boundary_only_survivors_cross(workspace):
    single = workspace.evaluate()
    piped = over_ranks(workspace, "quality", "prefill")
    assert_same_results(piped, single)
    assert piped.samples[0].living == (48, 34, 34, 24, 24)
    for sample in piped.samples:
        assert sample.boundary_bytes == (24 * STATE,)
        assert sample.reference_boundary_bytes == (48 * STATE,)
    assert len(piped.prefill.samples) == 2
    for sample in piped.prefill.samples:
        assert len(sample.pairs) in (2, 3)
        assert all(pair.again > 0 for pair in sample.pairs)
        first, second = sample.ranks
        # The pair and the first rank's times come from the same clock.
        assert first.busy + first.idle == pytest.approx(sample.pairs[-1].arm)
        assert min(first.busy, first.idle, second.busy, second.idle) > 0
    assert piped.totals.peak_memory_bytes > 10**8


@pytest.mark.skipif(len(available_cores()) < 2, reason="two ranks on one core are not timed")
def test_arms_of_different_partitions_run_side_by_side_and_what_fails_fails_alone(workspace, capfd):
    """Stages before and after the boundary, a shorter prompt, other scores; no pruner, no boundary."""
    distance = {"importance": "learned_distance"}
    change = {
        "before": {},
        "after": {"pipeline": AFTER},
        "short": {"prompt_tokens": 40},
        "distance": distance,
    }
    members = {}
    for name, own in change.items():
        for measure in ("quality", "prefill"):
            out = f"rank-side-{name}-{measure}"
            members[name, measure] = workspace.member(measure, out, **({"pipeline": RANKS} | own))
    wrong = workspace.member("quality", "rank-side-wrong", pipeline=RANKS, inputs={"pruner": "nowhere"})
    after = workspace.member("quality", "rank-side-where", pipeline=AFTER, layers=[1, 4], label="nowhere")
    panel = Panel([*members.values(), wrong, after])
    evaluate_pipeline(panel)
    failed = [member.run.out.name for member in panel.members if member.failure is not None]
    assert failed == ["rank-side-wrong", "rank-side-where"]
    assert "input 'pruner' is missing" in wrong.failure
    assert not wrong.run.out.exists()
    errors = capfd.readouterr().err
    assert errors.count("error: rank-side-wrong: ") == errors.count("error: nowhere: ") == 1
    bytes_of = {}
    for name in change:
        samples = workspace.blocks(members[name, "quality"], "quality").samples
        bytes_of[name] = {(sample.boundary_bytes, sample.reference_boundary_bytes) for sample in samples}
        timed = workspace.blocks(members[name, "prefill"], "prefill").samples
        assert all(len(sample.pairs) in (2, 3) and len(sample.ranks) == 2 for sample in timed)
    assert bytes_of == {
        "before": {((24 * STATE,), (48 * STATE,))},
        "after": {((34 * STATE,), (48 * STATE,))},
        "short": {((20 * STATE,), (40 * STATE,))},
        "distance": {((24 * STATE,), (48 * STATE,))},
    }
    ranked = workspace.blocks(members["distance", "quality"], "quality")
    assert ranked.rows == workspace.evaluate(**distance).quality.rows
    assert ranked.rows != workspace.blocks(members["before", "quality"], "quality").rows


def test_pruned_after_the_boundary_all_living_tokens_cross_under_torchrun(workspace):
    change = {"importance": "random", "positions": "packed", "seed": 3}
    single = workspace.evaluate(**change)
    # With this many threads the ranks share cores: nothing is timed, and a line gives the reason.
    threads = len(available_cores())
    change |= {"pipeline": AFTER, "compute": {"dtype": "float32", "threads": threads}}
    members = {
        measure: workspace.member(measure, f"torchrun-{measure}", label="after", **change)
        for measure in ("quality", "prefill")
    }
    wrong = workspace.member("retrieval", "torchrun-wrong", label="wrong")
    panel = workspace.panel("ablations.sdtp.evaluate_pipeline", [*members.values(), wrong])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "ablations.sdtp.evaluate_pipeline", "--panel", str(panel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.count("error: wrong: pipeline: null; a single process is for") == 1, done.stderr
    assert "error: 1 of 3 failed: wrong" in done.stderr
    piped = Evaluated(**{measure: workspace.blocks(member, measure) for measure, member in members.items()})
    assert_same_results(piped, single)
    assert {sample.boundary_bytes for sample in piped.samples} == {(34 * STATE,)}
    assert not any(sample.pairs or sample.ranks for sample in piped.prefill.samples)
    assert done.stderr.count(f"no times, only bytes: 2 ranks of {threads} thread(s)") == 1


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_ranks_continue_every_layer_after_its_own_prompt(workspace, positions):
    """Two ranks and a single process, against the naive float64 forward."""
    change = {"importance": "hidden_norm", "positions": positions}
    single = workspace.evaluate(**change)
    piped = over_ranks(workspace, **change)
    model = workspace.folder / "model" / "manifest.json"
    lm = load_model(model, Compute(), torch.device("cpu"))
    heldout = Heldout(load_tokenizer(model)).windows(workspace.folder / "text" / "manifest.json", 56, 4)
    for window, *samples in zip(heldout, single.samples, piped.samples, strict=True):
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
        over_ranks(workspace, layers=[1, 4], pipeline=AFTER)
    assert not (workspace.folder / "block" / "ranks-quality").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": None}, "^pipeline: null"),
        ({"importance": "prior"}, r"spec\.\S*importance: 'prior' does not run over pipeline ranks"),
        ({"mask": "soft"}, r"spec\.\S*mask: 'soft'"),
        ({"propagation": "local"}, r"spec\.\S*propagation: 'local'"),
        ({"selection": "top_p"}, r"spec\.\S*selection: 'top_p'"),
        ({"positions": "stale"}, r"spec\.\S*positions: 'stale' .* use original or packed"),
    ],
)
def test_what_ranks_do_not_support_is_refused(workspace, change, message):
    with pytest.raises(UserError, match=message):
        over_ranks(workspace, **change)


def test_retrieval_is_not_measured_over_ranks(workspace):
    with pytest.raises(UserError, match=r"spec\.\S*prompts: retrieval is not measured over pipeline ranks"):
        over_ranks(workspace, "retrieval")
