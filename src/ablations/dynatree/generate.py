"""Greedy decoding by the `generate` method of `transformers`, as a reference from outside this project."""

from time import perf_counter

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ablations.dynatree.decoding import Generation
from ablations.lm.layered import LayeredLM


def decode_with_transformers(target: LayeredLM, prompt: list[int], limit: int) -> Generation:
    """Greedy decoding with the default (dynamic) cache of `transformers`.

    Args:
        target: The model.
        prompt: Token ids.
        limit: Most new tokens; end of sequence stops earlier.

    Returns:
        The generation; one round per token after the first, its parts not timed.
    """
    ids = torch.tensor([prompt], device=target.device)
    eos = sorted(target.eos_ids) or None
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        # A checkpoint may bring a penalty along; greedy decoding has none.
        repetition_penalty=1.0,
        max_new_tokens=limit,
        eos_token_id=eos,
        pad_token_id=eos[0] if eos else 0,
    )
    clock = _FirstToken()
    start = perf_counter()
    output = target.model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=clock
    )
    tokens = output[0, len(prompt) :].tolist()
    return Generation(tokens=tokens, accepted=[0] * (len(tokens) - 1), first_seconds=clock.at - start)


class _FirstToken(BaseStreamer):
    """Notes when the first token after the prompt comes."""

    def __init__(self) -> None:
        self._calls = 0
        self.at = 0.0

    def put(self, value: Tensor) -> None:
        # generate streams the prompt first; a token's value is on the CPU when it is streamed.
        self._calls += 1
        if self._calls == 2:
            self.at = perf_counter()

    def end(self) -> None:
        """Nothing is held back."""
