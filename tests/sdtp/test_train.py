from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from ablations.core.errors import UserError
from ablations.sdtp.pruned.continuation import continuation_states, log_probabilities, quality
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import SaliencyTable
from ablations.sdtp.scores.targets import regression_targets
from ablations.sdtp.training.losses import ranking_loss
from ablations.sdtp.training.ranking import rank_heldout
from ablations.sdtp.training.states import UnprunedStates
from ablations.sdtp.training.trainer import MASKED_RATE, PrunerTrainer, untrained
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


def make_table(ids, saliency, heldout=0, spec=SALIENCY, continuations=None, kinds=None) -> SaliencyTable:
    """A table whose last `heldout` windows are held out; windows are of text if nothing else is said."""
    windows = len(ids)
    return SaliencyTable(
        ids,
        saliency,
        torch.arange(windows) >= windows - heldout,
        torch.full((windows,), CONTINUATION) if continuations is None else continuations,
        kinds or ("text",) * windows,
        tuple(f"document {window}" for window in range(windows)),
        spec,
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


def train(trainer):
    while not trainer.finished:
        trainer.step()


@pytest.fixture(scope="module")
def frozen():
    lm = tiny_lm("llama")
    ids = torch.randint(VOCABULARY, (56, 56), generator=torch.Generator().manual_seed(2))
    saliency = torch.stack([window_saliency(lm, window, LAYERS, CONTINUATION, "norm")[0] for window in ids])
    return lm, make_table(ids, saliency, heldout=24)


ANSWERS = (3, 5, 1, 3)


@pytest.fixture(scope="module")
def mixed():
    """Six windows of text, and four of retrieval, whose answers are shorter; two held out."""
    lm = tiny_lm("llama")
    ids = torch.randint(VOCABULARY, (12, 56), generator=torch.Generator().manual_seed(4))
    lengths = [CONTINUATION] * 6 + [*ANSWERS] + [CONTINUATION] * 2
    saliency = torch.zeros(12, 3, 56)
    for window, length in enumerate(lengths):
        tokens = 48 + length
        saliency[window, :, :tokens] = window_saliency(lm, ids[window, :tokens], LAYERS, length, "norm")[0]
        # Padding is zero in a table; no training may read it.
        ids[window, tokens:] = 0
    kinds = ("text",) * 6 + ("passkey", "pairs", "passkey", "pairs") + ("text",) * 2
    return lm, make_table(ids, saliency, 2, continuations=torch.tensor(lengths), kinds=kinds)


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
    states = UnprunedStates(lm, table, LAYERS)
    trained, before = rank_heldout(lm, table, spec, [trainer.pruner, untrained(lm, spec)], states)
    assert [row.document for row in trained] == list(table.documents[32:])
    gains = torch.tensor([row.spearman for row in trained]).mean(1)
    gains -= torch.tensor([row.spearman for row in before]).mean(1)
    # Student's t, 23 degrees of freedom.
    assert gains.mean() - 2.069 * gains.std() / 24**0.5 > 0


def test_a_batch_of_windows_gives_the_mean_of_their_losses(mixed):
    """A retrieval window's answer is shorter than the batch, and counts no less for it."""
    lm, table = mixed
    windows = torch.tensor([3, 7, 8])
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
    trainer, other = (PrunerTrainer(lm, make_spec(warmup_epochs=3, epochs=1), table) for _ in range(2))
    assert (trainer.warmup_steps, trainer.steps) == (48, 64)
    before = mean_losses(other)
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
    assert rates[-1] == MASKED_RATE * 0.01, "the masked steps begin at a peak of their own"
    assert mean_losses(trainer)["ranking"] < before["ranking"] - 0.01
    train(trainer)
    assert set(trainer.history[-1]) == {"lm", "mse", "ranking"}
    assert trainer._optimiser.param_groups[0]["lr"] == 0


def test_trainings_share_the_unpruned_states(mixed):
    lm, table = mixed
    states = UnprunedStates(lm, table, LAYERS)
    ranking = {"losses": {"lm": 0.0, "mse": 0.0, "ranking": 1.0}, "seed": 3}
    specs = [make_spec(warmup_epochs=2, epochs=1, **change) for change in ({}, ranking)]
    alone = [PrunerTrainer(lm, spec, table) for spec in specs]
    for trainer in alone:
        train(trainer)
    ran = []
    hook = lm.layers[0].register_forward_hook(lambda *_: ran.append(1))
    for spec, expected in zip(specs, alone, strict=True):
        trainer = PrunerTrainer(lm, spec, table, states)
        train(trainer)
        assert trainer.history == expected.history
        for own, other in zip(trainer.pruner.parameters(), expected.pruner.parameters(), strict=True):
            assert torch.equal(own, other)
    assert len(ran) == 10, "the layers below the first stage run once per window for all steps of both"
    hook.remove()


def test_unpruned_states_are_those_of_the_model(mixed):
    lm, table = mixed
    states = UnprunedStates(lm, table, LAYERS)
    for window in (0, 7):
        ids = table.ids[window : window + 1, : 48 + table.continuations[window]]
        expected = lm.model(ids, output_hidden_states=True, use_cache=False).hidden_states
        torch.testing.assert_close(states.window(window), expected[LAYERS[0]][0])
        prompts = torch.cat([expected[layer][:, :48] for layer in LAYERS])
        torch.testing.assert_close(states.prompt(window), prompts)


def test_warm_up_losses_are_those_of_the_unpruned_model(frozen):
    lm, table = frozen
    trainer = PrunerTrainer(lm, make_spec(warmup_epochs=1), table)
    losses = trainer.warmup_losses(torch.tensor([4, 9]))
    ids = table.ids[[4, 9], :48]
    states = lm.model(ids, output_hidden_states=True, use_cache=False).hidden_states
    scores = torch.stack([trainer.pruner(stage, states[layer]) for stage, layer in enumerate(LAYERS)])
    saliency = table.saliency[[4, 9], :, :48].transpose(0, 1)
    targets = regression_targets(saliency, torch.ones_like(saliency, dtype=torch.bool), "norm")
    torch.testing.assert_close(losses["mse"], F.mse_loss(scores, targets))
    torch.testing.assert_close(losses["ranking"], ranking_loss(scores, saliency))


def test_the_steps_after_the_warm_up_do_not_know_its_gradients(frozen):
    """Adam's first step is as long as the learning rate for every parameter."""
    lm, table = frozen
    trainer = PrunerTrainer(lm, make_spec(warmup_epochs=2, epochs=1), table)
    while len(trainer.history) < trainer.warmup_steps:
        trainer.step()
    weights = trainer.pruner.scorers[0].inner.weight
    before = weights.clone()
    trainer.step()
    # AdamW decays a weight by a hundredth of the rate, too.
    assert ((weights - before).abs().sub(MASKED_RATE * 0.01).abs() < 2e-4).float().mean() > 0.99


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
    trainer = PrunerTrainer(lm, make_spec(epochs=3), replace(table, saliency=saliency, spec=spec))
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
        trainer = PrunerTrainer(lm, make_spec(warmup_epochs=1), replace(table, saliency=saliency, spec=spec))
        for losses in (trainer.losses(windows), trainer.warmup_losses(windows)):
            values.append({name: loss.item() for name, loss in losses.items()})
            for name, loss in losses.items():
                last = [*trainer.pruner.scorers[-1].parameters()]
                gradients = torch.autograd.grad(loss, last, allow_unused=True, materialize_grads=True)
                assert any((gradient != 0).any() for gradient in gradients) == (name == "lm")
        states = UnprunedStates(lm, table, LAYERS)
        (rows,) = rank_heldout(lm, trainer.table, trainer.spec, [trainer.pruner], states)
        assert {len(row.spearman) for row in rows} == {2}
    assert values[0::2] == [values[0]] * 3
    assert values[1::2] == [values[1]] * 3


def test_a_scorer_at_the_last_layer_alone_learns_from_the_lm_loss(frozen):
    lm, table = frozen
    update = {"layers": LAYERS[-1:], "target": SALIENCY.target.model_copy(update={"measure": "abs"})}
    narrow = replace(table, saliency=table.saliency[:, -1:], spec=SALIENCY.model_copy(update=update))
    trainer = PrunerTrainer(lm, make_spec(layers=LAYERS[-1:], keep_ratios=(0.7,), warmup_epochs=2), narrow)
    assert trainer.warmup_steps == 0
    assert set(trainer.step()) == {"lm"}
    states = UnprunedStates(lm, narrow, LAYERS[-1:])
    assert rank_heldout(lm, narrow, trainer.spec, [trainer.pruner], states) == [[]]


def test_lm_loss_alone_learns_what_the_continuation_needs(frozen):
    """Overfit one window: the hard-pruned model predicts its continuation better than before."""
    lm, table = frozen
    single_window = make_table(table.ids[:1], table.saliency[:1])
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
        predicted = log_probabilities(lm, states)
        return quality(predicted, predicted, ids[-CONTINUATION:]).nll

    before = pruned_nll()
    train(trainer)
    assert pruned_nll() < before - 0.05


@pytest.mark.parametrize("name", ["mse", "ranking"])
def test_without_lm_loss_no_graph_goes_through_the_model(frozen, name):
    lm, table = frozen
    losses = {"lm": 0.0, "mse": 0.0, "ranking": 0.0} | {name: 1.0}
    narrow = replace(table, saliency=table.saliency[:, :2])
    trainer = PrunerTrainer(lm, make_spec(losses=losses, layers=(1, 3), keep_ratios=(0.7, 0.7)), narrow)
    ran, graphs = [], []
    hooks = [lm.lm_head.register_forward_hook(lambda *_: ran.append("head"))]
    for index, layer in enumerate(lm.layers):
        hooks.append(layer.register_forward_hook(lambda *_, index=index: ran.append(index)))
        hooks.append(layer.register_forward_hook(lambda m, a, out: graphs.append(out.requires_grad)))
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
    trainer = PrunerTrainer(lm, make_spec(epochs=1), make_table(ids, saliency))
    trainer.step()
    assert {parameter.dtype for parameter in trainer.pruner.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in trainer.pruner.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_saliency_or_state_that_is_not_finite_stops_the_training(frozen, value):
    lm, table = frozen
    saliency = table.saliency.clone()
    saliency[:32, 1, 20] = value
    trainer = PrunerTrainer(lm, make_spec(), replace(table, saliency=saliency))
    with pytest.raises(UserError, match=r"diverged at step 0: loss 'mse'.*learning_rate"):
        train(trainer)


def test_stages_of_training_keep_what_inference_keeps(frozen):
    trainer = PrunerTrainer(frozen[0], make_spec(), frozen[1])
    assert trainer.living_counts == (34, 24, 17)


def test_every_stage_learns_from_text_and_from_retrieval(mixed):
    lm, table = mixed
    trainer = PrunerTrainer(lm, make_spec(epochs=1, batch=1), table)
    for window in range(10):
        for name, loss in trainer.losses(torch.tensor([window])).items():
            for stage, scorer in enumerate(trainer.pruner.scorers):
                (gradient,) = torch.autograd.grad(loss, scorer.inner.weight, retain_graph=True)
                assert (gradient != 0).any(), f"{name} at stage {stage}"
    before = untrained(lm, trainer.spec)
    train(trainer)
    for scorer, initial in zip(trainer.pruner.scorers, before.scorers, strict=True):
        for parameter, other in zip(scorer.parameters(), initial.parameters(), strict=True):
            assert not torch.equal(parameter, other)


@pytest.mark.parametrize(("window", "length"), [(2, CONTINUATION), (7, ANSWERS[1]), (8, ANSWERS[2])])
def test_the_lm_loss_of_a_window_is_that_of_what_follows_its_prompt(mixed, window, length):
    """Where nothing is dropped, it is the model's own NLL of these tokens."""
    lm, table = mixed
    trainer = PrunerTrainer(lm, make_spec(keep_ratios=(1.0, 1.0, 1.0)), table)
    windows = torch.tensor([window])
    loss = trainer.losses(windows)["lm"].item()
    tokens = 48 + length
    logits = lm.model(table.ids[windows, :tokens]).logits[0, 47 : tokens - 1]
    assert loss == pytest.approx(F.cross_entropy(logits, table.ids[window, 48:tokens]).item(), rel=1e-5)


@pytest.mark.parametrize("others", [(), (2,)])
def test_padding_has_no_effect_on_any_loss(mixed, others):
    lm, table = mixed
    windows = torch.tensor([6, *others])
    ids, saliency = table.ids.clone(), table.saliency.clone()
    ids[6, 48 + ANSWERS[0] :] = 90
    saliency[6, :, 48 + ANSWERS[0] :] = 7.0
    spec = make_spec()
    losses, other = (
        PrunerTrainer(lm, spec, filled).losses(windows)
        for filled in (table, replace(table, ids=ids, saliency=saliency))
    )
    assert losses == other


def orders(table, **change):
    trainer = PrunerTrainer(tiny_lm("llama"), make_spec(**{"batch": 1} | change), table)
    return trainer, torch.cat(trainer.batches[trainer.warmup_steps :]).tolist()


def test_text_and_retrieval_take_turns_while_both_last(mixed):
    table = mixed[1]
    _, order = orders(table, epochs=2)
    for one_pass in (order[:10], order[10:]):
        assert sorted(one_pass) == list(range(10))
        assert [window < 6 for window in one_pass] == [True, False] * 4 + [True] * 2
    assert order[:10] != order[10:]
    assert order != orders(table, epochs=2, seed=1)[1]


@pytest.mark.parametrize(
    ("epochs", "batch", "sizes"),
    [(0.7, 1, [1] * 7), (0.7, 2, [2, 2, 2, 1]), (1.15, 4, [4, 4, 4]), (0.01, 3, [1]), (0.3, 1, [1] * 3)],
)
def test_a_part_of_a_pass(mixed, epochs, batch, sizes):
    """Of three tenths of ten windows there are three, not four for a rounding error."""
    trainer, order = orders(mixed[1], epochs=epochs, batch=batch)
    assert [len(windows) for windows in trainer.batches[trainer.warmup_steps :]] == sizes
    assert order == orders(mixed[1], epochs=2)[1][: len(order)]


def test_arms_with_other_losses_see_the_same_windows_in_the_same_order(mixed):
    table = mixed[1]
    weights = [{"lm": lm, "mse": mse, "ranking": 0.0} for lm, mse in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))]
    found = [orders(table, warmup_epochs=3, epochs=1.5, losses=losses) for losses in weights]
    assert [trainer.warmup_steps for trainer, _ in found] == [30, 0, 30]
    assert found[0][1] == found[1][1] == found[2][1]
    assert torch.equal(torch.cat(found[0][0].batches), torch.cat(found[2][0].batches))


def test_a_scorer_that_is_told_the_distance_learns_recency(frozen):
    """Here saliency is recency, of which a causal state knows little."""
    lm, table = frozen
    recency = replace(table, saliency=torch.arange(1.0, 57.0).expand(56, 3, 56))
    states = UnprunedStates(lm, table, LAYERS)
    found = {}
    for distance in (False, True):
        spec = make_spec(distance=distance, warmup_epochs=10, epochs=0.01, losses={"lm": 0.0})
        trainer = PrunerTrainer(lm, spec, recency, states)
        train(trainer)
        (rows,) = rank_heldout(lm, recency, spec, [trainer.pruner], states)
        found[distance] = min(min(row.spearman) for row in rows)
    assert found[True] > 0.85, found
    assert found[False] < 0.7, found
