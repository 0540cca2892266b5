"""Every scorer has a gradient of the LM loss, with the schedules and windows of the studies."""

from pathlib import Path

import pytest
import torch
import yaml
from snakemake.utils import update_config

from ablations.lm.layered import LayeredLM
from ablations.lm.models.random import make_random_model
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.training.trainer import PrunerTrainer
from ablations.specs.lm import RandomModel
from ablations.study.planning.plan import Plan

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("overlay", [None, "full", "paper-scale", "paper-scale-sdtp-llama2", "tiny"])
def test_the_lm_loss_has_a_gradient_at_every_stage(overlay, tmp_path, monkeypatch):
    for name in ("texts", "drafts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    if overlay is not None:
        update_config(raw, yaml.safe_load((ROOT / f"workflow/studies/{overlay}.yaml").read_text()))
    plan = Plan(raw, ROOT)
    pruner = plan.row("A5").jobs[0].inputs["text"].inputs["pruner"]
    windows = pruner.inputs["saliency"].spec
    source = RandomModel(
        source="random",
        architecture="llama",
        layers=plan.config.models[plan.config.sdtp.model].layers,
        hidden_size=32,
        heads=2,
    )
    model, _ = make_random_model(source)
    torch.manual_seed(0)
    table = SaliencyTable(
        ids=torch.randint(200, (2, windows.tokens)),
        saliency=torch.rand(2, len(windows.layers), windows.tokens),
        heldout=torch.tensor([False, False]),
        continuations=torch.tensor([windows.continuation_tokens, 4]),
        kinds=("text", "passkey"),
        documents=("text", "retrieval"),
        spec=windows,
    )
    spec = pruner.spec.model_copy(update={"compute": windows.compute.model_copy(update={"dtype": "float32"})})
    trainer = PrunerTrainer(LayeredLM(model.eval().requires_grad_(False)), spec, table)
    for window, kind in enumerate(table.kinds):
        loss = trainer.losses(torch.tensor([window]))["lm"]
        for stage, scorer in enumerate(trainer.pruner.scorers):
            gradients = torch.autograd.grad(loss, [*scorer.parameters()], retain_graph=True)
            assert all((gradient != 0).any() for gradient in gradients), f"{kind} at stage {stage}"
