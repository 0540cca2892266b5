"""The jobs, run from spec files: their results, and their errors for bad input."""

import json
import subprocess
import sys

import pytest
import torch

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.core.files import sha256_file
from ablations.lm.models.random import MAX_POSITIONS
from ablations.sdtp.scores.pruner import PRUNER_FILE, load_pruner
from ablations.specs.sdtp.train import PrunerSpec
from tests.sdtp.workspace import COMPUTE, COUNTS, SPECS

MATCH = {
    "quantity": "count",
    "layers": [1, 3],
    "keep_ratios": [0.5, 0.5],
    "preserve": {"head": 2, "tail": 4},
}
SALIENCY = {"measure": "norm", "loss_tokens": 8}


def test_fewer_stages_use_the_scorers_of_their_own_layers(workspace):
    record = workspace.evaluate(layers=[3], keep_ratios=[0.7])
    assert record.samples[0].living == (48, 48, 48, 34, 34)
    pruner, _ = load_pruner(workspace.folder / "pruner" / PRUNER_FILE, torch.device("cpu"))
    states = torch.randn(7, 64)
    assert torch.equal(pruner.of_stages([1])(0, states), pruner(1, states))


def test_training_facts_and_artefact(workspace):
    folder, manifest = open_artefact(workspace.folder / "pruner" / "manifest.json")
    assert set(manifest.facts["losses"]) == {"lm", "mse", "ranking"}
    assert len(manifest.facts["ranking"]) == len(manifest.facts["ranking_untrained"]) == 2
    pruner, spec = load_pruner(folder / PRUNER_FILE, torch.device("cpu"))
    assert spec == PrunerSpec.model_validate(SPECS["pruner"])
    assert pruner(1, torch.randn(7, 64)).shape == (7,)


def test_training_repeats_with_its_seed(workspace):
    def weights(out, **change):
        path = workspace.run("pruner", out, **change)
        return sha256_file(path.parent / PRUNER_FILE)

    again = weights("pruner_again")
    assert again == sha256_file(workspace.folder / "pruner" / PRUNER_FILE)
    assert again != weights("pruner_other", seed=1)


def test_losses_of_weight_zero_are_not_computed(workspace):
    path = workspace.run("pruner", "pruner_lm", losses={"lm": 1.0, "mse": 0.0, "ranking": 0.0})
    assert set(open_artefact(path)[1].facts["losses"]) == {"lm"}
    path = workspace.run("pruner", "pruner_targets", losses={"lm": 0.0, "mse": 1.0, "ranking": 1.0})
    assert set(open_artefact(path)[1].facts["losses"]) == {"mse", "ranking"}


@pytest.mark.parametrize(
    ("job", "change", "message"),
    [
        (
            "evaluate",
            {"preserve": {"head": 40, "tail": 8}},
            r"preserve: keeps all 48 tokens of a prompt",
        ),
        (
            "evaluate",
            {"prompt_tokens": 10, "preserve": {"head": 4, "tail": 16}},
            r"preserve: keeps all 10 tokens of a prompt",
        ),
        ("evaluate", {"layers": [1, 9]}, r"layer 9 does not exist.*0 to 4"),
        ("evaluate", {"layers": [1, 9], "importance": "random"}, r"layer 9 does not exist.*0 to 4"),
        (
            "evaluate",
            {"layers": list(range(10)), "keep_ratios": [0.7] * 10},
            r"layer 9 does not exist.*0 to 4",
        ),
        ("evaluate", {"layers": [1, 2]}, r"pruner for layers \[1, 3\]"),
        ("evaluate", {"keep_ratios": [0.7, 0.0]}, r"keep_ratios.*greater than 0"),
        ("evaluate", {"keep_ratios": [0.7]}, r"keep_ratios: 1 ratios for 2 layers"),
        ("evaluate", {"pipeline": {"ranks": 2}}, r"pipeline.*evaluate_pipeline"),
        ("evaluate", {"importance": "random", "mask": "soft"}, "mask: 'soft' needs the keep logits"),
        ("evaluate", {"importance": "recent", "selection": "top_p"}, "selection.*keep logits"),
        ("evaluate", {"importance": "saliency"}, "saliency: belongs to importance 'saliency'"),
        ("evaluate", {"saliency": SALIENCY}, "saliency: belongs to importance 'saliency'"),
        (
            "evaluate",
            {"importance": "saliency", "saliency": SALIENCY | {"loss_tokens": 48}},
            r"saliency\.loss_tokens: 48 is not less",
        ),
        (
            "evaluate",
            {"importance": "saliency", "saliency": SALIENCY | {"measure": "abs"}, "layers": [1, 4]},
            r"saliency\.measure: 'abs' of the loss 'continuation' is 0 at the input of the last layer \(4\)",
        ),
        ("evaluate", {"mask": "soft", "positions": "packed"}, "positions: 'packed'.*use 'original'"),
        (
            "evaluate",
            {"propagation": "stale_keys", "positions": "stale"},
            "positions: 'stale'.*use 'original'",
        ),
        ("evaluate", {"mask": "soft", "propagation": "local"}, "propagation: 'local' needs mask 'hard'"),
        ("evaluate", {"match": MATCH, "propagation": "local"}, r"match: needs"),
        (
            "evaluate",
            {"match": MATCH, "layers": [3], "keep_ratios": [0.7]},
            r"match: 'count' needs",
        ),
        ("evaluate", {"prompt_tokens": 3000}, "at least 3008 tokens"),
        ("saliency", {"layers": [1, 9]}, "layer 9 does not exist"),
        ("saliency", {"compute": COMPUTE | {"dtype": "float16"}}, r"compute\.dtype.*float16"),
        ("pruner", {"layers": [1, 2]}, r"saliency of layers \[1, 3\]"),
        ("saliency", {"continuation_tokens": 64}, r"spec\.tokens: 64 leave no prompt"),
        (
            "pruner",
            {"preserve": {"head": 50, "tail": 8}},
            r"saliency\.tokens: stage 1 of 2 has nothing to drop in training: it keeps all 56 that are left"
            r" of a prompt of 56 tokens .*56 of them protected; raise tokens, protect less \(preserve\)",
        ),
        ("pruner", {"preserve": {"head": 4, "tail": 0.7}}, r"saliency\.tokens: stage 2 of 2.*keeps all 44"),
        (
            "pruner",
            {"keep_ratios": [0.7, 1.0]},
            r"stage 2 of 2 has nothing.*training prune less",
        ),
        ("pruner", {"compute": COMPUTE | {"dtype": "float16"}}, r"compute\.dtype.*float16"),
        ("pruner", {"losses": {"lm": 0.0, "mse": 0.0, "ranking": 0.0}}, "losses: all weights are zero"),
        ("pruner", {"learning_rate": 1e30}, "diverged.*learning_rate"),
        ("calibration", {"layers": [1, 9]}, "layer 9 does not exist"),
        ("calibration", {"tokens": 6}, r"preserve: keeps all 6 tokens"),
        ("calibration", {"tokens": 9999}, "at least 9999 tokens"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(workspace, job, change, message):
    out = "block/bad-quality" if job == "evaluate" else "bad"
    with pytest.raises(UserError, match=message) as caught:
        if job == "evaluate":
            workspace.evaluate(name="bad", **change)
        else:
            workspace.run(job, out, **change)
    assert "\n" not in str(caught.value)
    assert not (workspace.folder / out).exists()


def test_what_the_last_layers_product_cannot_tell_is_refused(workspace):
    vanishing = (
        r"saliency\.measure: 'abs' of the loss 'continuation' is 0 at the input of the last layer \(4\)"
    )
    last = {"layers": [4], "keep_ratios": [0.7]}
    target = {"measure": "abs", "loss": "continuation"}
    workspace.run("saliency", "last_saliency", layers=[4], target=target)
    inputs = {"saliency": "last_saliency"}
    losses = {"lm": 0.0, "mse": 1.0, "ranking": 1.0}
    with pytest.raises(UserError, match=vanishing + ".*nothing would be trained"):
        workspace.run("pruner", "never", inputs, losses=losses, **last)
    with pytest.raises(UserError, match=vanishing + ".*nothing could be chosen"):
        workspace.evaluate(inputs=inputs, importance="prior", **last)
    workspace.run("pruner", "last_pruner", inputs, warmup_epochs=1, **last)
    manifest = json.loads((workspace.folder / "last_pruner/manifest.json").read_text())
    assert set(manifest["facts"]["losses"]) == {"lm"}
    record = workspace.evaluate(inputs={"pruner": "last_pruner"}, **last)
    assert record.totals.training.ranking == ()


def test_saliency_windows_longer_than_the_models_positions_are_refused(workspace):
    lines = "".join(f'{{"text": "{number} {"ab " * 2 * MAX_POSITIONS}"}}\n' for number in range(40))
    (workspace.folder / "long.jsonl").write_text(lines)
    source = {"source": "local", "path": str(workspace.folder / "long.jsonl")}
    workspace.run("text", "long_text", text=source)
    with pytest.raises(UserError, match=r"saliency\.tokens: \d+ tokens exceed the model's \d+ positions"):
        workspace.run(
            "saliency",
            "never",
            {"text": "long_text"},
            tokens=MAX_POSITIONS + 1,
            documents=1,
            heldout_documents=1,
        )


def test_damaged_pruner(workspace):
    workspace.run("pruner", "pruner_damaged")
    (workspace.folder / "pruner_damaged" / PRUNER_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match="SHA-256"):
        workspace.evaluate(inputs={"pruner": "pruner_damaged"})


def test_command_line(workspace):
    """One bad series is named and the other measured; the second time nothing is left to do."""
    good = workspace.member("quality", "line-good", label="good", importance="recent")
    bad = workspace.member("quality", "line-bad", label="bad", layers=[1, 9])
    panel = workspace.panel("ablations.sdtp.evaluate", [good, bad])
    command = [sys.executable, "-m", "ablations.sdtp.evaluate", "--panel", str(panel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert lines[0].startswith("error: bad: schedule.layers: layer 9 does not exist")
    assert lines[1] == "error: 1 of 2 failed: bad (their errors are above)"
    assert len(workspace.blocks(good, "quality").samples) == COUNTS["quality"]
    before = {path: path.stat().st_mtime_ns for path in good.run.out.iterdir()}
    done = subprocess.run([*command, "--without", "line-bad"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in good.run.out.iterdir()} == before
