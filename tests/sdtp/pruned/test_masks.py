import torch

from ablations.sdtp.pruned.masks import attention_mask


def test_attention_mask_by_hand():
    mask = attention_mask(torch.tensor([[1.0, 0.0, 1.0]]), torch.float32)[0, 0]
    seen = torch.softmax(mask, -1)
    torch.testing.assert_close(seen[0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(seen[1], torch.tensor([0.5, 0.5, 0.0]))  # dropped, sees itself
    torch.testing.assert_close(seen[2], torch.tensor([0.5, 0.0, 0.5]))


def test_dropped_tokens_get_the_gradient_of_the_product_form():
    """Softmax with weights: exp(a_j) * v_j / sum, as DynamicViT writes it."""
    logits = torch.tensor([[0.3, -1.0, 0.7]])
    values = torch.tensor([1.0, -2.0, 5.0])

    def gradient(attend):
        visible = torch.tensor([1.0, 0.0, 1.0], requires_grad=True)
        (attend(visible) @ values).sum().backward()
        return visible.grad[:2]

    def additive(visible):
        return torch.softmax(logits + attention_mask(visible[None], torch.float32)[0, 0, 2], -1)

    def product(visible):
        weights = logits.exp() * torch.cat([visible[:2], torch.ones(1)])
        return weights / weights.sum()

    expected = gradient(product)
    assert (expected != 0).all()
    torch.testing.assert_close(gradient(additive), expected)
