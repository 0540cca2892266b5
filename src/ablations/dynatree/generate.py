"""Greedy decoding by the `generate` method of `transformers`, a reference from outside this project."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ablations.dynatree.decoding import Generation
from ablations.lm.finite import finite_logits
from ablations.lm.layered import LayeredLM


def decode_with_transformers(
    target: LayeredLM,
    prompt: list[int],
    limit: int,
    assistant: nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
) -> Generation:
    """Decode greedily with `generate` and its default (dynamic) cache.

    Args:
        target: The model.
        prompt: Token ids.
        limit: Most new tokens; an end of sequence stops earlier.
        assistant: Causal LM with the target's vocabulary that drafts (assisted generation).
        options: Further settings of `GenerationConfig`, for prompt lookup or the assistant.

    Returns:
        The generation, with one round per forward after the prefill; parts of a round are not timed.

    Raises:
        UserError: logits of the target or of the assistant are NaN or infinite.
    """
    ids = torch.tensor([prompt], device=target.device)
    eos = sorted(target.eos_ids) or None
    options = options or {}
    # Settings that are not given here come from the model, where `LayeredLM` removed the checkpoint's.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=limit,
        eos_token_id=eos,
        pad_token_id=eos[0] if eos else 0,
        **options,
    )
    if assistant is not None:
        # `generate` reads these from the assistant's configuration, where a heuristic schedule changes them.
        assistant.generation_config.update(**options)
    heads = [target.lm_head] if assistant is None else [target.lm_head, assistant.get_output_embeddings()]
    clock = _Rounds()
    start = perf_counter()
    with finite_logits(heads, "the logits of generate", target.dtype):
        output = target.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            streamer=clock,
            assistant_model=assistant,
        )
    tokens = output[0, len(prompt) :].tolist()
    # Each forward decides one of its tokens; its other tokens are accepted candidates.
    accepted = [emitted - 1 for emitted in clock.emitted[1:]]
    return Generation(tokens=tokens, accepted=accepted, first_seconds=clock.first - start)


class _Rounds(BaseStreamer):
    """Records the number of tokens of each forward, and the time of the first token."""

    def __init__(self) -> None:
        self._in_prompt = True
        self.emitted: list[int] = []
        self.first = 0.0

    def put(self, value: Tensor) -> None:
        # `generate` streams the prompt first. Streamed tokens are on the CPU, so their forward has ended.
        if self._in_prompt:
            self._in_prompt = False
            return
        if not self.emitted:
            self.first = perf_counter()
        self.emitted.append(value.numel())

    def end(self) -> None:
        """Nothing to do: no token is buffered."""
