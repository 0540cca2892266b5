"""The target's states as drafts read them, and the file in which a teacher leaves them."""

from torch import Tensor, nn
from torch.nn import functional as F

TEACHER_FILE = "teacher.safetensors"


def normalised(norm: nn.Module, states: Tensor) -> Tensor:
    """What the target's final norm does to `states` ``[..., hidden]``, without learned scale and bias."""
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(states, states.shape[-1:], eps=norm.eps)
    return F.rms_norm(states, states.shape[-1:], eps=norm.variance_epsilon)
