"""States of the target from one forward, as an independent way to those of traces."""

import torch
from torch import Tensor

from ablations.lm.finite import require_finite
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM


def states_of_text(target: LayeredLM, prompt: list[int], greedy: list[int]) -> Tensor:
    """The target's last-layer states for `replay`, from one forward over prompt and continuation.

    Returns:
        ``[prompt + greedy - 1, hidden]``, states of all tokens except the last, before the final norm.

    Raises:
        UserError: a state is NaN or infinite.
    """
    ids = torch.tensor([prompt + greedy[:-1]], device=target.device)
    states = last_states(target, ids, torch.arange(ids.shape[1], device=ids.device)[None])[0]
    require_finite(bool(states.isfinite().all()), "the target's last states", target.dtype)
    return states
