import json

import pytest
import torch
from torch.nn import functional as F

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.sdtp.scores.gradient import window_saliency
from ablations.sdtp.scores.table import read_saliency
from ablations.specs.lm import Compute
from ablations.specs.sdtp.retrieval import KINDS
from ablations.specs.sdtp.saliency import SaliencyTarget

LAYERS = (0, 2, 5)


@pytest.mark.parametrize("loss_tokens", [16, 59])
def test_saliency_against_the_model_itself(lm, ids, loss_tokens):
    """Gradients at the layers' inputs, taken with hooks from the plain forward of `transformers`."""
    states = {}

    def remember(index):
        def hook(module, args):
            states[index] = args[0]
            args[0].retain_grad()

        return hook

    backbone = lm.model.gpt_neox if lm.config.model_type == "gpt_neox" else lm.model.model
    for index in LAYERS:
        backbone.layers[index].register_forward_pre_hook(remember(index))
    embedded = lm.embed(ids[None]).detach().requires_grad_()
    logits = lm.model(inputs_embeds=embedded, use_cache=False).logits[0]
    loss = F.cross_entropy(logits[-loss_tokens - 1 : -1], ids[-loss_tokens:])
    loss.backward()
    expected = {"abs": [], "norm": [], "signed": []}
    for index in LAYERS:
        gradient, state = states[index].grad[0], states[index][0]
        product = (gradient * state).sum(-1)
        expected["abs"].append(product.abs())
        expected["signed"].append(-product)
        expected["norm"].append(gradient.norm(dim=-1) * state.norm(dim=-1))
    for measure, values in expected.items():
        saliency, nll = window_saliency(lm, ids, LAYERS, loss_tokens, measure)
        torch.testing.assert_close(saliency, torch.stack(values).detach(), atol=1e-6, rtol=1e-3)
        assert nll == pytest.approx(loss.item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_signed_saliency_is_the_rise_of_the_loss_when_a_state_shrinks(llama, ids):
    """Shrink one token's state a little at a layer's input and see the NLL of the continuation rise."""
    layer, token, shrink = 2, 17, 0.01
    llama.model.double()
    saliency, before = window_saliency(llama, ids, (layer,), 16, "signed")

    def shrunk(module, args):
        state = args[0].clone()
        state[0, token] *= 1 - shrink
        return (state, *args[1:])

    llama.layers[layer].register_forward_pre_hook(shrunk)
    with torch.no_grad():
        logits = llama.forward(ids[None], torch.arange(60)[None])[0, -17:-1]
    after = F.cross_entropy(logits.float(), ids[-16:]).item()
    assert (after - before) / shrink == pytest.approx(saliency[0, token].item(), rel=0.1)


@pytest.mark.parametrize("measure", ["abs", "signed"])
def test_the_product_vanishes_at_the_last_layers_input_for_the_continuation_alone(lm, ids, measure):
    """For prompt tokens that predict no loss token, since the last layer normalises its input."""
    lm.model.double()
    layers, prompt = tuple(range(6)), 44
    for loss_tokens, target in ((60 - prompt, "continuation"), (59, "window")):
        product, _ = window_saliency(lm, ids, layers, loss_tokens, measure)
        share = product.abs() / window_saliency(lm, ids, layers, loss_tokens, "norm")[0]
        others = share[:, : prompt - 1].median(1).values
        assert (others[:-1] > 1e-3).all()
        assert others[-1] < 1e-6 if target == "continuation" else others[-1] > 1e-3
        # The last prompt token predicts the continuation's first.
        assert share[-1, prompt - 1] > 1e-6
        assert SaliencyTarget(measure=measure, loss=target).stages(layers, 6) == 5 + (target == "window")
    assert SaliencyTarget(measure=measure).stages((1, 4), 6) == 2
    assert SaliencyTarget(measure="norm").stages(layers, 6) == 6


def test_layers_before_the_first_stage_and_weights_get_no_gradient(llama, ids):
    """Such gradients would be wasted work; hooks record the layers that the backward reaches."""
    reached = set()
    for index, layer in enumerate(llama.layers):
        layer.register_full_backward_hook(lambda *_, index=index: reached.add(index))
    window_saliency(llama, ids, (2, 4), 16, "norm")
    assert reached == {2, 3, 4, 5}


@pytest.fixture(scope="module")
def long_text(workspace):
    """Name of a text whose documents fill retrieval prompts; a byte is a token."""
    lines = [
        json.dumps({"text": "".join(f"line {line} of {number}\n" for line in range(40))})
        for number in range(30)
    ]
    path = workspace.folder / "lines.jsonl"
    path.write_text("\n".join(lines))
    workspace.run("text", "lines", text={"source": "local", "path": str(path)})
    return "lines"


def table_of(workspace, text, **change):
    path = workspace.run("saliency", "mixed", {"text": text}, **{"tokens": 308, "documents": 5} | change)
    return read_saliency(path, (1, 3)), open_artefact(path)[1].facts


@pytest.mark.parametrize("loss", ["continuation", "window"])
def test_retrieval_windows_stand_between_text_and_heldout_windows(workspace, long_text, loss):
    target = {"measure": "norm", "loss": loss}
    table, facts = table_of(workspace, long_text, retrieval={"count": 6}, target=target)
    assert table.kinds == ("text",) * 5 + (*KINDS, *KINDS[:2]) + ("text",) * 2
    assert table.heldout.tolist() == [False] * 11 + [True] * 2
    assert table.prompt_tokens == 300
    assert len(set(table.documents)) == 13
    assert table.documents == tuple(facts["documents"])
    assert set(facts["nll"]) == {"text", *KINDS}
    model = workspace.folder / "model" / "manifest.json"
    lm, tokenizer = load_model(model, Compute(), torch.device("cpu")), load_tokenizer(model)
    for window, kind in enumerate(table.kinds):
        counted = table.continuations[window].item()
        assert counted == (8 if kind == "text" else 5)
        ids, padding = table.ids[window].split([300 + counted, 8 - counted])
        assert not padding.any()
        assert kind == "text" or tokenizer.decode(ids[300:]) in tokenizer.decode(ids[:284])
        saliency, _ = window_saliency(
            lm, ids, (1, 3), counted if loss == "continuation" else len(ids) - 1, "norm"
        )
        assert torch.equal(table.saliency[window], F.pad(saliency, (0, 8 - counted)))


def test_a_table_of_text_alone(workspace, long_text):
    table, facts = table_of(workspace, long_text)
    assert set(table.kinds) == set(facts["nll"]) == {"text"}
    assert table.continuations.tolist() == [8] * 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retrieval": {"count": 30}}, r"sdtp\.saliency\.retrieval\.count: 30 documents of split 'train'"),
        (
            {"retrieval": {"count": 4}, "tokens": 90},
            r"sdtp\.saliency\.tokens: 82 tokens leave no text beside",
        ),
        (
            {"retrieval": {"count": 4}, "continuation_tokens": 4},
            r"sdtp\.saliency\.continuation_tokens: 4 tokens have no room for an answer of 5 .* raise it",
        ),
    ],
)
def test_retrieval_windows_that_cannot_be_cut_are_one_line(workspace, long_text, change, message):
    with pytest.raises(UserError, match=message) as caught:
        table_of(workspace, long_text, **change)
    assert "\n" not in str(caught.value)
