"""Linear layers whose weights are stored in the layout that oneDNN multiplies."""

import torch
from torch import Tensor, nn

from ablations.lm.layered import LayeredLM


class PackedLinear(nn.Module):
    """A linear layer with a prepacked weight, for CPU inference in float32 or bfloat16.

    With a stock `nn.Linear` the matrix library rearranges the weight in every call, which takes most of the
    time when few rows are multiplied. The product is the same up to the order of summation.

    Args:
        linear: The layer to replace; its weight is copied into the packed layout.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        # torch's inductor compiles frozen CPU models to the same operators.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer: ``[..., in_features]`` to ``[..., out_features]``."""
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")


def pack_linears(lm: LayeredLM) -> str:
    """Replace the linear layers of a language model as `pack_module` does.

    Returns:
        Name of the layout that the linear layers now have: ``onednn`` or ``stock``.
    """
    layout = pack_module(lm.model)
    lm.lm_head = lm.model.get_output_embeddings()
    return layout


def pack_module(module: nn.Module) -> str:
    """Replace the linear layers inside a module on the CPU by packed ones, in place, if oneDNN supports them.

    Returns:
        Name of the layout that the linear layers now have: ``onednn`` or ``stock``.
    """
    weight = next(module.parameters())
    if weight.device.type != "cpu" or not _packable(weight.dtype):
        return "stock"
    for inner in list(module.modules()):
        for name, child in list(inner.named_children()):
            if isinstance(child, nn.Linear):
                setattr(inner, name, PackedLinear(child))
    return "onednn"


def _packable(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        # The packed bfloat16 product needs a processor with bfloat16 instructions.
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32
