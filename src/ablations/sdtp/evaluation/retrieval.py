"""What a prefilled model answers to a retrieval prompt."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.lm.cache import StaticCache
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.layered import LayeredLM
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.prefill import Prefilled


@torch.inference_mode()
def probe(lm: LayeredLM, prefilled: Prefilled, cache: StaticCache, answer: Tensor) -> tuple[bool, float]:
    """Ask a prefilled model for the answer.

    Args:
        lm: Model.
        prefilled: Result of the prefill of `RetrievalPrompt.prompt`.
        cache: Cache of that prefill, with room for the answer; it grows.
        answer: ``[tokens]`` int64, on the model's device.

    Returns:
        Whether greedy decoding gives the whole answer, and the mean NLL of its tokens in nats. Greedy
        decoding gives it if and only if each token is the most probable one after the right tokens before it.

    Raises:
        UserError: logits are NaN or infinite.
    """
    logits = lm.head(continuation_states(lm, prefilled, cache, answer)[None])[0].float()
    greedy = greedy_ids(logits)
    hit, finite = torch.stack([(greedy == answer).all(), (greedy != NOT_FINITE).all()]).tolist()
    require_finite(finite, "the logits after a retrieval prompt", lm.dtype)
    return hit, F.cross_entropy(logits, answer).item()
