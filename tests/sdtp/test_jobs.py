"""The four jobs through their spec files, on a tiny random model and a local text."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.sdtp import evaluate as evaluate_module
from ablations.sdtp.evaluate import SdtpRecord, evaluate
from ablations.sdtp.pruner import PRUNER_FILE, load_pruner
from ablations.sdtp.reference import reference
from ablations.sdtp.saliency import saliency
from ablations.sdtp.train import train_pruner
from ablations.study.artefact import open_artefact
from ablations.study.contracts.lm import PrepareModelSpec, PrepareTextSpec
from ablations.study.contracts.sdtp import EvaluateSpec, PrunerSpec, ReferenceSpec, SaliencySpec
from ablations.study.errors import UserError
from ablations.study.files import sha256_file
from ablations.study.job import Run, read_job
from ablations.study.record_io import read_record

COMPUTE = {"dtype": "float32", "threads": 1}
LAYERS = [1, 3]
PRESERVE = {"head": 2, "tail": 4}
WINDOWS = {"documents": 4, "prompt_tokens": 48, "continuation_tokens": 8}
SPECS = {
    "model": {"model": {"source": "random", "architecture": "llama", "layers": 5, "description": "tiny"}},
    "text": {"text": {"source": "local", "path": "corpus.jsonl"}},
    "saliency": {
        "layers": LAYERS,
        "documents": 6,
        "validation_documents": 2,
        "tokens": 64,
        "continuation_tokens": 8,
        "compute": COMPUTE,
    },
    "pruner": {
        "layers": LAYERS,
        "losses": {"lm": 1.0, "mse": 1.0, "ranking": 1.0},
        "keep_ratios": [0.7, 0.7],
        "preserve": PRESERVE,
        "width": 16,
        "epochs": 2,
        "batch": 2,
        "learning_rate": 0.003,
        "temperature": 0.5,
        "seed": 0,
        "compute": COMPUTE,
    },
    "reference": {"windows": WINDOWS, "compute": COMPUTE},
    "evaluate": {
        "importance": "learned",
        "layers": LAYERS,
        "keep_ratios": [0.7, 0.7],
        "preserve": PRESERVE,
        "positions": "original",
        "mask": "hard",
        "propagation": "cascade",
        "selection": "top_k",
        "windows": WINDOWS,
        "timing": {"documents": 2, "repeats": 2},
        "seed": 0,
        "compute": COMPUTE,
    },
}
JOBS = {
    "model": (PrepareModelSpec, prepare_model, ()),
    "text": (PrepareTextSpec, prepare_text, ()),
    "saliency": (SaliencySpec, saliency, ("model", "text")),
    "pruner": (PrunerSpec, train_pruner, ("model", "saliency")),
    "reference": (ReferenceSpec, reference, ("model", "text")),
    "evaluate": (EvaluateSpec, evaluate, ("model", "text", "reference", "pruner")),
}


class Workspace:
    """A folder in which spec files are written and jobs run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def spec_file(self, job: str, change: dict, inputs: dict[str, str]) -> Path:
        path = self.folder / f"{job}.spec.json"
        paths = {name: str(self.folder / inputs.get(name, name) / "manifest.json") for name in JOBS[job][2]}
        content = {
            "digest": job,
            "module": f"ablations.{job}",
            "spec": SPECS[job] | change,
            "inputs": paths,
            "spec_digest": "s",
            "code_digest": "c",
        }
        path.write_text(json.dumps(content))
        return path

    def run(self, job: str, out: str | None = None, inputs: dict[str, str] | None = None, **change) -> Path:
        spec_type, work, _ = JOBS[job]
        path = self.folder / (out or job)
        path = path if path.suffix == ".json" else path / "manifest.json"
        work(Run(read_job(self.spec_file(job, change, inputs or {}), spec_type), path, "label"))
        return path

    def evaluate(self, out: str = "record.json", inputs: dict[str, str] | None = None, **change):
        return read_record(self.run("evaluate", out, inputs, **change), SdtpRecord)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, monkeypatch_module) -> Workspace:
    folder = tmp_path_factory.mktemp("sdtp")
    # A lock of its own: these timings mean nothing, and must not wait for ones that do.
    monkeypatch_module.setenv("XDG_RUNTIME_DIR", str(folder))
    words = random.Random(0)
    letters = "etaoin shrdlu "
    lines = [
        json.dumps({"text": f"document {i} " + "".join(words.choices(letters, k=120))}) for i in range(60)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    workspace = Workspace(folder)
    workspace.run("model")
    workspace.run("text", text={"source": "local", "path": str(folder / "corpus.jsonl")})
    for job in ("saliency", "pruner", "reference"):
        workspace.run(job)
    return workspace


def test_chain_ends_in_a_record(workspace):
    record = workspace.evaluate()
    assert record.outcome.status == "ok"
    assert record.label == "label"
    assert [len(sample.pairs) for sample in record.samples] == [2, 2, 0, 0]
    assert len({sample.document for sample in record.samples}) == 4
    for sample in record.samples:
        assert sample.living == (48, 34, 34, 24, 24)
        assert 0 < abs(sample.nll - sample.reference_nll) < 1
    totals = record.totals
    assert totals.kv_bytes / totals.reference_kv_bytes == pytest.approx(164 / 240)
    assert totals.prefill_flops < totals.reference_prefill_flops
    assert totals.peak_memory_bytes > 10**8
    side = workspace.folder / record.side.file
    assert sha256_file(side) == record.side.sha256
    rows = [json.loads(line) for line in side.read_text().splitlines()]
    assert [row["document"] for row in rows] == [sample.document for sample in record.samples]
    for row in rows:
        assert len(row["kept"]) == 24
        assert row["kept"] == sorted(row["kept"])
        assert {0, 1, 44, 45, 46, 47} <= set(row["kept"])


def test_ratio_one_costs_no_quality(workspace):
    record = workspace.evaluate(keep_ratios=[1.0, 1.0])
    for sample in record.samples:
        assert sample.nll == pytest.approx(sample.reference_nll, abs=1e-5)


@pytest.mark.parametrize("importance", ["learned", "random"])
def test_same_seed_same_quality(workspace, importance):
    def quality():
        return [sample.nll for sample in workspace.evaluate(importance=importance).samples]

    assert quality() == quality()


def test_seed_moves_random_importance_alone(workspace):
    def quality(**change):
        return [sample.nll for sample in workspace.evaluate(**change).samples]

    assert quality(importance="random", seed=1) != quality(importance="random", seed=2)
    assert quality(importance="learned", seed=1) == quality(importance="learned", seed=2)


def test_random_importance_needs_no_pruner(workspace):
    record = workspace.evaluate(importance="random", inputs={"pruner": "nowhere"})
    assert record.outcome.status == "ok"


def test_fewer_stages_use_the_scorers_of_their_own_layers(workspace):
    record = workspace.evaluate(layers=[3], keep_ratios=[0.7])
    assert record.samples[0].living == (48, 48, 48, 34, 34)
    pruner, _ = load_pruner(workspace.folder / "pruner" / PRUNER_FILE, torch.device("cpu"))
    states = torch.randn(7, 64)
    assert torch.equal(pruner.of_stages([1])(0, states), pruner(1, states))


def test_training_facts_and_artefact(workspace):
    folder, manifest = open_artefact(workspace.folder / "pruner" / "manifest.json")
    assert set(manifest.facts["losses"]) == {"lm", "mse", "ranking"}
    assert len(manifest.facts["spearman"]) == len(manifest.facts["spearman_untrained"]) == 2
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


@pytest.mark.parametrize("error", [RuntimeError("shapes differ\nmore"), IndexError("x"), ValueError("x")])
def test_crash_of_the_arm_is_a_record(workspace, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(evaluate_module, "continuation_nll", broken)
    record = workspace.evaluate("crashed.json")
    assert record.outcome.status == "crashed"
    assert record.outcome.exception == type(error).__name__
    assert record.outcome.message == str(error).splitlines()[0]
    assert record.outcome.place.endswith(f"broken in {__name__}")
    assert record.samples == ()
    assert record.totals is None


@pytest.mark.parametrize(
    "error", [UserError("x"), torch.OutOfMemoryError("x"), MemoryError("x"), KeyError("x")]
)
def test_other_errors_are_no_findings(workspace, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(evaluate_module, "continuation_nll", broken)
    with pytest.raises(type(error)):
        workspace.run("evaluate", "never.json")
    assert not (workspace.folder / "never.json").exists()


@pytest.mark.parametrize(
    ("job", "change", "message"),
    [
        ("evaluate", {"preserve": {"head": 40, "tail": 8}}, r"windows\.prompt_tokens.*preserve"),
        ("evaluate", {"layers": [1, 9]}, r"schedule\.layers.*\[1, 9\]|layer 9"),
        ("evaluate", {"layers": [1, 9], "importance": "random"}, r"layer 9 does not exist.*0 to 4"),
        ("evaluate", {"layers": [1, 2]}, r"pruner for layers \[1, 3\]"),
        ("evaluate", {"windows": WINDOWS | {"documents": 3}}, "made for other windows"),
        ("evaluate", {"windows": WINDOWS | {"documents": 4000}}, "4000 documents"),
        ("reference", {"windows": WINDOWS | {"prompt_tokens": 9999}}, "at least 10007 tokens"),
        ("saliency", {"layers": [1, 9]}, "layer 9 does not exist"),
        ("saliency", {"compute": COMPUTE | {"dtype": "float16"}}, r"compute\.dtype.*float16"),
        ("pruner", {"layers": [1, 2]}, r"saliency of layers \[1, 3\]"),
        ("saliency", {"continuation_tokens": 64}, r"saliency\.tokens: 64.*continuation_tokens"),
        ("pruner", {"preserve": {"head": 50, "tail": 8}}, r"saliency\.tokens: 64.*preserve"),
        ("pruner", {"compute": COMPUTE | {"dtype": "float16"}}, r"compute\.dtype.*float16"),
        ("pruner", {"losses": {"lm": 0.0, "mse": 0.0, "ranking": 0.0}}, "losses: all weights are zero"),
        ("pruner", {"learning_rate": 1e30}, "diverged.*learning_rate"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(workspace, job, change, message):
    out = "bad.json" if job == "evaluate" else "bad"
    with pytest.raises(UserError, match=message) as caught:
        workspace.run(job, out, **change)
    assert "\n" not in str(caught.value)
    assert not (workspace.folder / out).exists()


def test_damaged_pruner(workspace):
    workspace.run("pruner", "pruner_damaged")
    (workspace.folder / "pruner_damaged" / PRUNER_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match="SHA-256"):
        workspace.evaluate(inputs={"pruner": "pruner_damaged"})


def test_command_line(workspace):
    spec = workspace.spec_file("evaluate", {"preserve": {"head": 40, "tail": 8}}, {})
    command = [
        sys.executable,
        "-m",
        "ablations.sdtp.evaluate",
        "--spec",
        spec,
        "--out",
        workspace.folder / "no",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: windows.prompt_tokens: 48")
    assert done.stderr.count("\n") == 1
