import pytest
import torch
from torch.nn import functional as F

from ablations.sdtp.saliency import window_saliency

LAYERS = (0, 2, 5)


def test_saliency_against_the_model_itself(lm, ids):
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
    loss = F.cross_entropy(logits[43:-1], ids[44:])
    loss.backward()
    expected = {"abs": [], "norm": []}
    for index in LAYERS:
        gradient, state = states[index].grad[0], states[index][0]
        expected["abs"].append((gradient * state).sum(-1).abs())
        expected["norm"].append(gradient.norm(dim=-1) * state.norm(dim=-1))
    for measure, values in expected.items():
        found, nll = window_saliency(lm, ids, LAYERS, 16, measure)
        torch.testing.assert_close(found, torch.stack(values).detach(), atol=1e-6, rtol=1e-3)
        assert nll == pytest.approx(loss.item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in lm.model.parameters())
