import pytest
import torch

from ablations.sdtp.continuation import continuation_nll
from ablations.sdtp.prefill import Pruning, prefill
from ablations.sdtp.saliency import window_saliency
from ablations.sdtp.table import SaliencyTable
from ablations.sdtp.train import Trainer
from ablations.study.contracts.sdtp import PrunerSpec, SaliencySpec
from tests.sdtp.random_models import LAYERS as MODEL_LAYERS
from tests.sdtp.random_models import VOCABULARY, tiny_lm

LAYERS = (1, 3, MODEL_LAYERS - 1)
CONTINUATION = 8
SALIENCY = SaliencySpec(
    layers=LAYERS,
    measure="norm",
    documents=32,
    validation_documents=4,
    tokens=56,
    continuation_tokens=CONTINUATION,
    compute={},
)


def make_spec(**change) -> PrunerSpec:
    fields = {
        "layers": LAYERS,
        "losses": {"lm": 1.0, "mse": 1.0, "ranking": 1.0},
        "keep_ratios": (0.7, 0.7, 0.7),
        "preserve": {"head": 2, "tail": 3},
        "width": 32,
        "epochs": 6,
        "batch": 2,
        "learning_rate": 0.01,
        "temperature": 0.5,
        "seed": 0,
        "compute": {},
    }
    return PrunerSpec.model_validate(fields | change)


@pytest.fixture(scope="module")
def frozen():
    lm = tiny_lm("llama")
    ids = torch.randint(VOCABULARY, (36, 56), generator=torch.Generator().manual_seed(2))
    saliency = torch.stack([window_saliency(lm, window, LAYERS, CONTINUATION, "norm")[0] for window in ids])
    return lm, SaliencyTable(ids, saliency, torch.arange(36) >= 32, SALIENCY)


def mean_losses(trainer):
    rows = [trainer.losses(window) for window in range(32)]
    return {name: sum(row[name].item() for row in rows) / len(rows) for name in rows[0]}


def test_training_lowers_the_losses_and_raises_spearman_on_held_out_windows(frozen):
    trainer = Trainer(frozen[0], make_spec(), frozen[1])
    before, untrained = mean_losses(trainer), trainer.rank_correlation()
    last = trainer.train()
    after, trained = mean_losses(trainer), trainer.rank_correlation()
    for name in ("mse", "ranking"):
        assert after[name] < before[name]
        assert last[name] < before[name]
    assert sum(trained) / len(trained) > sum(untrained) / len(untrained) + 0.15
    assert all(parameter.grad is None for parameter in frozen[0].model.parameters())


def test_lm_loss_alone_learns_what_the_continuation_needs(frozen):
    """Overfit one window: the hard-pruned model predicts its continuation better than before."""
    lm, table = frozen
    one = SaliencyTable(table.ids[:1], table.saliency[:1], torch.tensor([False]), SALIENCY)
    spec = make_spec(losses={"lm": 1.0, "mse": 0.0, "ranking": 0.0}, epochs=80, batch=1)
    trainer = Trainer(lm, spec, one)

    def pruned_nll():
        ids = table.ids[0]
        cache = lm.new_cache(56)
        pruning = Pruning(LAYERS, spec.keep_ratios, spec.preserve, "original")
        prefilled = prefill(lm, ids[:-CONTINUATION], cache, pruning, trainer.pruner)
        return continuation_nll(lm, prefilled, cache, ids[-CONTINUATION:]).item()

    before = pruned_nll()
    trainer.train()
    assert pruned_nll() < before - 0.05


@pytest.mark.parametrize("name", ["mse", "ranking"])
def test_without_lm_loss_no_graph_goes_through_the_model(frozen, name):
    losses = {"lm": 0.0, "mse": 0.0, "ranking": 0.0} | {name: 1.0}
    trainer = Trainer(frozen[0], make_spec(losses=losses), frozen[1])
    heads = []
    hook = frozen[0].lm_head.register_forward_hook(lambda *_: heads.append(1))
    found = trainer.losses(0)
    hook.remove()
    assert set(found) == {name}
    assert heads == []


def test_stages_of_training_keep_what_inference_keeps(frozen):
    trainer = Trainer(frozen[0], make_spec(), frozen[1])
    assert trainer.prompt == 48
    assert trainer.counts == (34, 24, 17)
