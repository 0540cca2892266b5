"""Whether an arm emitted the target's own greedy tokens."""

import torch

from ablations.lm.layered import LayeredLM
from ablations.study.contracts.lm import Dtype
from ablations.study.errors import UserError

# Products of one row and of many rows round differently in 8 and 11 bits of mantissa; logits of these
# models are of the order of 20, where neighbouring values lie 0.125 and 0.016 apart.
TIE_MARGINS: dict[Dtype, float] = {"float32": 0.0, "bfloat16": 0.5, "float16": 0.0625}


def count_ties(
    target: LayeredLM, document: str, prompt: list[int], emitted: list[int], greedy: list[int], margin: float
) -> int:
    """Check emitted tokens against those of greedy decoding.

    Where they differ, the target reads the emitted tokens in one forward (teacher forcing), and each
    must lie within `margin` of its most probable token.

    Args:
        target: The model that decides.
        document: Prompt's name, for the message.
        prompt: Token ids.
        emitted: The arm's tokens.
        greedy: The target's own greedy tokens, decoded one by one.
        margin: Largest difference of logits that counts as a tie; 0 allows no departure.

    Returns:
        Number of ties: 0 where the tokens are identical.

    Raises:
        UserError: a departure that is no tie.
    """
    if emitted == greedy:
        return 0
    ids = torch.tensor([prompt + emitted[:-1]], device=target.device)
    logits = target.forward(ids, torch.arange(ids.shape[1], device=ids.device)[None])[0, len(prompt) - 1 :]
    chosen = logits.gather(1, torch.tensor(emitted, device=ids.device)[:, None])[:, 0]
    gaps = (logits.max(dim=1).values - chosen).float()
    if margin == 0.0 or gaps.max() > margin:
        differs = (
            index for index, pair in enumerate(zip(emitted, greedy, strict=False)) if pair[0] != pair[1]
        )
        position = next(differs, min(len(emitted), len(greedy)))
        raise UserError(
            f"prompt {document}: new token {position} is not the target's greedy token (largest gap"
            f" {gaps.max():.2g} in logits, {margin} allowed); speculative decoding must not change the output"
        )
    # The departure may be the reference's own: still a tie.
    return max(1, int((gaps > 0).sum()))
