import pytest
import torch

from ablations.core.errors import UserError
from ablations.sdtp.pruned.continuation import continuation_states, quality
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.sdtp.training.losses import ranking_loss, regression_loss
from ablations.sdtp.training.ranking import rank_heldout
from ablations.sdtp.training.states import UnprunedStates
from ablations.sdtp.training.trainer import PrunerTrainer, untrained
from ablations.specs.sdtp.saliency import SaliencySpec
from ablations.specs.sdtp.train import PrunerSpec
from tests.sdtp.random_models import LAYERS as MODEL_LAYERS
from tests.sdtp.random_models import VOCABULARY, tiny_lm

LAYERS = (1, 3, MODEL_LAYERS - 1)
CONTINUATION = 8
SALIENCY = SaliencySpec(
    layers=LAYERS,
    target={},
    documents=32,
    heldout_documents=24,
    tokens=56,
    continuation_tokens=CONTINUATION,
    compute={},
)
DOCUMENTS = tuple(f"document {window}" for window in range(56))


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


def train(trainer):
    while not trainer.finished:
        trainer.step()


@pytest.fixture(scope="module")
def frozen():
    lm = tiny_lm("llama")
    ids = torch.randint(VOCABULARY, (56, 56), generator=torch.Generator().manual_seed(2))
    saliency = torch.stack([window_saliency(lm, window, LAYERS, CONTINUATION, "norm")[0] for window in ids])
    return lm, SaliencyTable(ids, saliency, torch.arange(56) >= 32, DOCUMENTS, SALIENCY)


def mean_losses(trainer):
    with torch.no_grad():
        return {name: loss.item() for name, loss in trainer.losses(torch.arange(32)).items()}


def test_training_lowers_the_losses(frozen):
    trainer = PrunerTrainer(frozen[0], make_spec(), frozen[1])
    before = mean_losses(trainer)
    train(trainer)
    after = mean_losses(trainer)
    for name in ("mse", "ranking"):
        assert after[name] < before[name]
        assert trainer.history[-1][name] < before[name]
    assert all(parameter.grad is None for parameter in frozen[0].model.parameters())


def test_training_ranks_held_out_windows_better_than_an_untrained_scorer(frozen):
    """By Spearman, per document and stage, with an interval that excludes zero."""
    lm, table = frozen
    spec = make_spec()
    trainer = PrunerTrainer(lm, spec, table)
    train(trainer)
    trained, before = rank_heldout(lm, table, spec, [trainer.pruner, untrained(lm, spec)])
    assert [row.document for row in trained] == list(DOCUMENTS[32:])
    gains = torch.tensor([row.spearman for row in trained]).mean(1)
    gains -= torch.tensor([row.spearman for row in before]).mean(1)
    # Student's t, 23 degrees of freedom.
    assert gains.mean() - 2.069 * gains.std() / 24**0.5 > 0


def test_a_batch_of_windows_gives_the_mean_of_their_losses(frozen):
    lm, table = frozen
    windows = torch.tensor([3, 11, 20])
    for name in ("lm", "mse", "ranking"):
        losses = {"lm": 0.0, "mse": 0.0, "ranking": 0.0} | {name: 1.0}
        trainer = PrunerTrainer(lm, make_spec(losses=losses), table)
        trainer.noise = None
        together = trainer.losses(windows)[name].item()
        alone = [trainer.losses(window[None])[name].item() for window in windows]
        assert together == pytest.approx(sum(alone) / 3, rel=1e-4)


def test_each_loss_is_clipped_by_itself_in_every_step(frozen):
    lm, table = frozen

    def gradient(**losses):
        trainer = PrunerTrainer(lm, make_spec(losses={"lm": 0.0, "mse": 0.0, "ranking": 0.0} | losses), table)
        trainer.step()
        return torch.cat([p.grad.flatten() for p in trainer.pruner.parameters()])

    alone = [gradient(**{name: 1.0}) for name in ("mse", "ranking", "lm")]
    assert all(part.norm() <= 1.0001 for part in alone)
    torch.testing.assert_close(
        gradient(mse=2.0, ranking=0.5, lm=3.0), 2 * alone[0] + alone[1] / 2 + 3 * alone[2]
    )


def test_warm_up_learns_saliency_from_unpruned_states_that_are_computed_once(frozen):
    lm, table = frozen
    trainer = PrunerTrainer(lm, make_spec(warmup_epochs=3, epochs=1), table)
    assert (trainer.warmup_steps, trainer.epoch_steps, trainer.steps) == (48, 16, 64)
    before = mean_losses(trainer)
    ran = []
    hooks = [layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(lm.layers)]
    rates = []
    while len(trainer.history) < trainer.warmup_steps:
        rates.append(trainer.step() and trainer._optimiser.param_groups[0]["lr"])
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1, 2, 3, 4] * 32, "one forward per window, up to the last stage's input"
    assert set(trainer.history[-1]) == {"mse", "ranking"}
    assert rates[:-1] == sorted(rates[:-1], reverse=True)
    assert rates[-1] == 0.01, "the learning rate is at its peak again"
    assert mean_losses(trainer)["ranking"] < before["ranking"] - 0.01
    train(trainer)
    assert set(trainer.history[-1]) == {"lm", "mse", "ranking"}
    assert trainer._optimiser.param_groups[0]["lr"] == 0


def test_trainings_share_the_unpruned_states_and_drop_them_after_the_last_warm_up(frozen):
    lm, table = frozen
    states = UnprunedStates(lm, table.ids[:, :-CONTINUATION], LAYERS)
    ranking = {"losses": {"lm": 0.0, "mse": 0.0, "ranking": 1.0}, "seed": 3}
    specs = [make_spec(warmup_epochs=2, epochs=1, **change) for change in ({}, ranking)]
    alone = [PrunerTrainer(lm, spec, table) for spec in specs]
    for trainer in alone:
        train(trainer)
    ran = []
    hook = lm.layers[0].register_forward_hook(lambda *_: ran.append(1))
    for spec, expected in zip(specs, alone, strict=True):
        trainer = PrunerTrainer(lm, spec, table, states, last=spec is specs[-1])
        while len(trainer.history) < trainer.warmup_steps:
            trainer.step()
        assert len(ran) == 32, "one forward per window for both"
        assert len(states) == (0 if spec is specs[-1] else 32)
        hook.remove()
        train(trainer)
        assert trainer.history == expected.history
        for own, other in zip(trainer.pruner.parameters(), expected.pruner.parameters(), strict=True):
            assert torch.equal(own, other)


@pytest.mark.parametrize("steps", [16, 20])
def test_a_training_that_resumes_after_its_warm_up_drops_the_states_that_others_needed(frozen, steps):
    lm, table = frozen
    spec = make_spec(warmup_epochs=1, epochs=1)
    states = UnprunedStates(lm, table.ids[:, :-CONTINUATION], LAYERS)
    first = PrunerTrainer(lm, spec, table, states, last=False)
    while len(first.history) < steps:
        first.step()
    assert len(states) == 32
    resumed = PrunerTrainer(lm, spec, table, states)
    assert len(states) == 32, "it may have to warm up"
    resumed.load_state_dict(first.state_dict())
    assert len(states) == 0


def test_warm_up_losses_are_those_of_the_unpruned_model(frozen):
    lm, table = frozen
    trainer = PrunerTrainer(lm, make_spec(warmup_epochs=1), table)
    losses = trainer.warmup_losses(torch.tensor([4, 9]))
    ids = table.ids[[4, 9], :48]
    states = lm.model(ids, output_hidden_states=True, use_cache=False).hidden_states
    scores = torch.stack([trainer.pruner(stage, states[layer]) for stage, layer in enumerate(LAYERS)])
    saliency = table.saliency[[4, 9], :, :48].transpose(0, 1)
    everything = torch.ones(3, 2, 48, dtype=torch.bool)
    targets = regression_targets(saliency, everything, "norm")
    torch.testing.assert_close(losses["mse"], regression_loss(scores, targets, everything))
    torch.testing.assert_close(losses["ranking"], ranking_loss(scores, saliency, everything))


def test_without_saliency_losses_there_is_no_warm_up(frozen):
    losses = {"lm": 1.0, "mse": 0.0, "ranking": 0.0}
    trainer = PrunerTrainer(frozen[0], make_spec(losses=losses, warmup_epochs=3, epochs=2), frozen[1])
    assert (trainer.warmup_steps, trainer.steps) == (0, 32)
    assert set(trainer.step()) == {"lm"}


@pytest.mark.parametrize("target", [{"measure": "signed"}, {"measure": "abs", "loss": "window"}])
def test_other_targets_can_be_learned(frozen, target):
    lm, table = frozen
    tokens = 55 if "loss" in target else CONTINUATION
    saliency = torch.stack(
        [window_saliency(lm, window, LAYERS, tokens, target["measure"])[0] for window in table.ids]
    )
    spec = SALIENCY.model_copy(update={"target": SALIENCY.target.model_validate(target)})
    trainer = PrunerTrainer(
        lm, make_spec(epochs=3), SaliencyTable(table.ids, saliency, table.heldout, DOCUMENTS, spec)
    )
    before = mean_losses(trainer)
    train(trainer)
    after = mean_losses(trainer)
    assert after["ranking"] < before["ranking"]
    assert after["mse"] < before["mse"]


@pytest.mark.parametrize("measure", ["abs", "signed"])
def test_rounding_noise_at_the_last_layer_teaches_nobody(frozen, measure):
    lm, table = frozen
    spec = SALIENCY.model_copy(update={"target": SALIENCY.target.model_copy(update={"measure": measure})})
    windows = torch.tensor([3, 11])
    values = []
    for noise in (0.0, 1e-9, 1.0):
        saliency = table.saliency.clone()
        saliency[:, -1] = noise * torch.rand(saliency[:, -1].shape)
        trainer = PrunerTrainer(
            lm, make_spec(warmup_epochs=1), SaliencyTable(table.ids, saliency, table.heldout, DOCUMENTS, spec)
        )
        for losses in (trainer.losses(windows), trainer.warmup_losses(windows)):
            values.append({name: loss.item() for name, loss in losses.items()})
            for name, loss in losses.items():
                last = [*trainer.pruner.scorers[-1].parameters()]
                gradients = torch.autograd.grad(loss, last, allow_unused=True, materialize_grads=True)
                assert any((gradient != 0).any() for gradient in gradients) == (name == "lm")
        (rows,) = rank_heldout(lm, trainer.table, trainer.spec, [trainer.pruner])
        assert {len(row.spearman) for row in rows} == {2}
    assert values[0::2] == [values[0]] * 3
    assert values[1::2] == [values[1]] * 3


def test_a_scorer_at_the_last_layer_alone_learns_from_the_lm_loss(frozen):
    lm, table = frozen
    update = {"layers": LAYERS[-1:], "target": SALIENCY.target.model_copy(update={"measure": "abs"})}
    narrow = SaliencyTable(
        table.ids, table.saliency[:, -1:], table.heldout, DOCUMENTS, SALIENCY.model_copy(update=update)
    )
    trainer = PrunerTrainer(lm, make_spec(layers=LAYERS[-1:], keep_ratios=(0.7,), warmup_epochs=2), narrow)
    assert trainer.warmup_steps == 0
    assert set(trainer.step()) == {"lm"}
    assert rank_heldout(lm, narrow, trainer.spec, [trainer.pruner]) == [[]]


def test_lm_loss_alone_learns_what_the_continuation_needs(frozen):
    """Overfit one window: the hard-pruned model predicts its continuation better than before."""
    lm, table = frozen
    single_window = SaliencyTable(
        table.ids[:1], table.saliency[:1], torch.tensor([False]), DOCUMENTS[:1], SALIENCY
    )
    losses = {"lm": 1.0, "mse": 0.0, "ranking": 0.0}
    # Long enough for the scores to outgrow the noise.
    spec = make_spec(losses=losses, epochs=240, batch=1, learning_rate=0.03)
    trainer = PrunerTrainer(lm, spec, single_window)

    def pruned_nll():
        ids = table.ids[0]
        cache = lm.new_cache(56)
        pruning = Pruning(LAYERS, spec.keep_ratios, spec.preserve)
        scorer = lambda stage, states, indices: trainer.pruner(stage, states)  # noqa: E731
        prefilled = prefill(lm, ids[:-CONTINUATION], cache, pruning, scorer)
        states = continuation_states(lm, prefilled, cache, ids[-CONTINUATION:])
        return quality(lm, states, states, ids[-CONTINUATION:]).nll

    before = pruned_nll()
    train(trainer)
    assert pruned_nll() < before - 0.05


@pytest.mark.parametrize("name", ["mse", "ranking"])
def test_without_lm_loss_no_graph_goes_through_the_model(frozen, name):
    lm, table = frozen
    losses = {"lm": 0.0, "mse": 0.0, "ranking": 0.0} | {name: 1.0}
    trainer = PrunerTrainer(lm, make_spec(losses=losses, layers=(1, 3), keep_ratios=(0.7, 0.7)), table)
    ran, graphs = [], []
    hooks = [lm.lm_head.register_forward_hook(lambda *_: ran.append("head"))]
    for index, layer in enumerate(lm.layers):
        hooks.append(layer.register_forward_hook(lambda *_, index=index: ran.append(index)))
        hooks.append(layer.register_forward_hook(lambda m, a, out: graphs.append(out.requires_grad)))
    narrow = SaliencyTable(table.ids, table.saliency[:, :2], table.heldout, DOCUMENTS, SALIENCY)
    trainer.table = narrow
    computed = trainer.losses(torch.tensor([0]))
    for hook in hooks:
        hook.remove()
    assert set(computed) == {name}
    assert ran == [0, 1, 2], "the forward ends at the last stage's input"
    assert not any(graphs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scorers_are_float32_whatever_the_model_is(dtype):
    lm = tiny_lm("llama")
    lm.model.to(dtype)
    ids = torch.randint(VOCABULARY, (2, 56), generator=torch.Generator().manual_seed(2))
    saliency = torch.rand(2, 3, 56)
    table = SaliencyTable(ids, saliency, torch.tensor([False, False]), DOCUMENTS[:2], SALIENCY)
    trainer = PrunerTrainer(lm, make_spec(epochs=1), table)
    trainer.step()
    assert {parameter.dtype for parameter in trainer.pruner.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in trainer.pruner.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_saliency_or_state_that_is_not_finite_stops_the_training(frozen, value):
    lm, table = frozen
    saliency = table.saliency.clone()
    saliency[:32, 1, 20] = value
    trainer = PrunerTrainer(
        lm, make_spec(), SaliencyTable(table.ids, saliency, table.heldout, DOCUMENTS, SALIENCY)
    )
    with pytest.raises(UserError, match=r"diverged at step 0: loss 'mse'.*learning_rate"):
        train(trainer)


def test_stages_of_training_keep_what_inference_keeps(frozen):
    trainer = PrunerTrainer(frozen[0], make_spec(), frozen[1])
    assert trainer.prompt_tokens == 48
    assert trainer.living_counts == (34, 24, 17)
