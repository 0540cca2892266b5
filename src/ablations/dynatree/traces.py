"""Greedy continuations of many prompts at once, with the target's states of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ablations.lm.cache import StaticCache
from ablations.lm.corpus import Window
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.layered import LayeredLM

BATCH = 20
"""Prompts whose tokens lie in one cache: attention reads all of them, the weights are read once."""


class Trace(NamedTuple):
    """A prompt, and what the target makes of it.

    Attributes:
        window: The prompt.
        greedy: The target's greedy continuation, end of sequence included.
        states: ``[prompt + greedy - 1, hidden]``, the target's last-layer states of all tokens but the last,
            before its final norm.
    """

    window: Window
    greedy: list[int]
    states: Tensor

    @property
    def prompt(self) -> list[int]:
        """Token ids of the prompt."""
        return self.window.ids.tolist()


def greedy_traces(target: LayeredLM, prompts: Sequence[Window], new_tokens: int) -> Iterator[Trace]:
    """Decode prompts greedily, `BATCH` of them in each forward.

    All prompts of a batch lie in one cache, one after another, and a row attends to its own prompt's rows
    alone. So forwards after the prefill multiply other numbers of rows than decoding one prompt does: where
    two logits tie but for rounding, the continuation may be another one than `decode_autoregressive` gives.

    Args:
        target: The model.
        prompts: Prompts; an end of sequence stops one before `new_tokens`.
        new_tokens: Most new tokens.

    Raises:
        UserError: logits are NaN or infinite.
    """
    starts = range(0, len(prompts), BATCH)
    for start in tqdm(starts, desc="greedy tokens", mininterval=2, unit="batch"):
        yield from _Batch(target, prompts[start : start + BATCH], new_tokens).decode()


class _Batch:
    """Prompts that are decoded together."""

    def __init__(self, target: LayeredLM, prompts: Sequence[Window], new_tokens: int) -> None:
        self._target = target
        self._prompts = prompts
        self._limit = new_tokens
        rows = sum(len(window.ids) + new_tokens for window in prompts)
        self._cache: StaticCache = target.new_cache(rows)
        # Which rows of the cache are of each prompt.
        self._own = torch.zeros(len(prompts), rows, dtype=torch.bool, device=target.device)
        self._greedy: list[list[int]] = []
        self._states: list[list[Tensor]] = []

    def decode(self) -> list[Trace]:
        """Decode all of them to their ends."""
        for place in range(len(self._prompts)):
            self._prefill(place)
        while living := [
            place
            for place, greedy in enumerate(self._greedy)
            if len(greedy) < self._limit and greedy[-1] not in self._target.eos_ids
        ]:
            self._step(living)
        return [
            Trace(window, greedy, torch.cat(states))
            for window, greedy, states in zip(self._prompts, self._greedy, self._states, strict=True)
        ]

    def _prefill(self, place: int) -> None:
        ids = self._prompts[place].ids.to(self._target.device)
        start, rows = self._cache.lengths[0], len(ids)
        self._own[place, start : start + rows] = True
        # As decoding computes it: the same forward gives the same bits, and no row reads other prompts' rows.
        alone = self._target.new_cache(rows)
        positions = torch.arange(rows, device=ids.device)
        states = self._target.states(ids[None], positions[None], None, alone)
        for layer, (keys, values) in enumerate(zip(alone.keys, alone.values, strict=True)):
            self._cache.update(keys, values, layer)
        (token,) = self._tokens(states[:, -1:], [0])
        self._greedy.append([token])
        self._states.append([states[0]])

    def _step(self, living: list[int]) -> None:
        device, start = self._target.device, self._cache.lengths[0]
        end = start + len(living)
        rows = torch.tensor(living, device=device)
        ids = torch.tensor([self._greedy[place][-1] for place in living], device=device)
        positions = torch.tensor(
            [len(self._prompts[place].ids) + len(self._greedy[place]) - 1 for place in living], device=device
        )
        self._own[rows, torch.arange(start, end, device=device)] = True
        mask = torch.zeros(len(living), end, dtype=self._target.dtype, device=device)
        mask.masked_fill_(~self._own[rows, :end], float("-inf"))
        states = self._target.states(ids[None], positions[None], mask[None, None], self._cache)
        tokens = self._tokens(states, [len(self._greedy[place]) for place in living])
        for row, (place, token) in enumerate(zip(living, tokens, strict=True)):
            self._greedy[place].append(token)
            self._states[place].append(states[0, row : row + 1])

    def _tokens(self, states: Tensor, numbers: list[int]) -> list[int]:
        tokens = greedy_ids(self._target.head(states))[0].tolist()
        for token, number in zip(tokens, numbers, strict=True):
            require_finite(
                token != NOT_FINITE, f"the target's logits of new token {number}", self._target.dtype
            )
        return tokens
