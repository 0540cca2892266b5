"""Greedy decoding of one prompt: autoregressive, and speculative with a linear or tree draft."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.drafters.interface import Drafter, TimedDrafter
from ablations.dynatree.growth.fixed import Growth
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import verify
from ablations.lm.cache import StaticCache
from ablations.lm.finite import NOT_FINITE, greedy_ids, require_finite
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch, synchronise


@dataclass
class Generation:
    """Result of decoding one prompt.

    ``len(tokens) == sum(accepted) + rounds + 1``, unless an end of sequence lies inside an accepted path:
    every round adds its accepted tokens and one token of the target's, and the prefill adds the first token.

    Attributes:
        tokens: Emitted token ids, end of sequence included.
        accepted: Draft tokens accepted and emitted in each round (a step, in autoregressive decoding).
        tested: Levels of each round at which an accepted node had drafted children, up to the last emitted
            token; at least `accepted`.
        drafted: Verified nodes below the root in each round.
        draft_forwards: Levels drafted.
        first_seconds: Seconds from the start to the first token, all prefills included.
        draft_seconds: Seconds in the drafter, without its prefill.
        verify_seconds: Seconds in the target's forwards after the prefill.
        round_seconds: Seconds in the rounds.
    """

    tokens: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    tested: list[int] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    draft_forwards: int = 0
    first_seconds: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    round_seconds: float = 0.0

    @property
    def bookkeeping_seconds(self) -> float:
        """Seconds of the rounds outside drafter and target; 0 if the clocks' difference is negative."""
        return max(0.0, self.round_seconds - self.draft_seconds - self.verify_seconds)


@dataclass(frozen=True)
class Draft:
    """A drafter, and the growth and buffers of its trees.

    Attributes:
        drafter: Proposes the nodes of a level.
        tree: Buffers of the tree; its `max_nodes` is the cap.
        growth: Decides which proposed nodes become part of the tree.
    """

    drafter: Drafter
    tree: TokenTree
    growth: Growth


def decode_autoregressive(target: LayeredLM, cache: StaticCache, prompt: list[int], limit: int) -> Generation:
    """Greedy decoding, one token per forward.

    Args:
        target: The model.
        cache: Cache with room for prompt and new tokens; its content is dropped.
        prompt: Token ids.
        limit: Most new tokens; an end of sequence stops earlier.

    Raises:
        UserError: logits are NaN or infinite.
    """
    generation = Generation()
    (token, _), generation.first_seconds = stopwatch(target.device, lambda: _prefill(target, cache, prompt))
    generation.tokens.append(token)
    start = perf_counter()
    while len(generation.tokens) < limit and token not in target.eos_ids:
        token = _step(target, cache, token)
        _require_token(target, token, len(generation.tokens))
        generation.tokens.append(token)
        generation.accepted.append(0)
    # A step is little more than its forward. Its time is complete, since the host has read the token.
    generation.round_seconds = generation.verify_seconds = perf_counter() - start
    return generation


def decode_speculative(
    target: LayeredLM, cache: StaticCache, draft: Draft, prompt: list[int], limit: int
) -> Generation:
    """Greedy decoding, one target forward per drafted tree; emits the tokens of greedy decoding.

    Args:
        target: The model whose greedy tokens are emitted.
        cache: Cache with room for prompt, new tokens and one tree; its content is dropped.
        draft: Drafter, and growth of its trees.
        prompt: Token ids.
        limit: Most new tokens; an end of sequence stops earlier, also inside an accepted path.

    Raises:
        UserError: logits of the target or probabilities of the draft are NaN or infinite.
    """
    generation = Generation()
    clock = PhaseClock(target.device)
    tree, growth = draft.tree, draft.growth
    drafter = TimedDrafter(draft.drafter, clock)
    (root, states), target_seconds = stopwatch(target.device, lambda: _prefill(target, cache, prompt))
    _, draft_seconds = stopwatch(target.device, lambda: draft.drafter.prefill(prompt, states))
    generation.first_seconds = target_seconds + draft_seconds
    generation.tokens.append(root)
    growth.start()
    start = perf_counter()
    while len(generation.tokens) < limit and root not in target.eos_ids:
        tree.plant(root)
        # One of the remaining tokens is the target's bonus token, so deeper nodes could not be emitted.
        rows = growth.grow(tree, drafter, limit - len(generation.tokens) - 1)
        verification = verify(target, tree, cache, clock, rows)
        path, bonus = verification.path, verification.bonus
        # No draft proposes `NOT_FINITE`, so logits that are not finite end the path: it is the bonus token.
        _require_token(target, bonus, len(generation.tokens) + len(path) - 1)
        emitted = _until_end([*tree.tokens[path[1:]].tolist(), bonus], target.eos_ids)
        generation.tokens += emitted
        generation.accepted.append(min(len(emitted), len(path) - 1))
        generation.tested.append(min(len(emitted), verification.tested))
        generation.drafted.append((tree.size if rows is None else len(rows)) - 1)
        root = emitted[-1]
        drafter.commit(tree, path, verification.states)
        growth.learn(tree.levels if rows is None else int(tree.depths[rows[-1]]), len(path) - 1)
    synchronise(target.device)
    generation.round_seconds = perf_counter() - start
    drafter.require_finite(target.dtype)
    generation.draft_seconds = clock.seconds("draft")
    generation.verify_seconds = clock.seconds("verify")
    generation.draft_forwards = drafter.forwards
    return generation


def _prefill(target: LayeredLM, cache: StaticCache, prompt: list[int]) -> tuple[int, Tensor]:
    """First new token, and last-layer states ``[prompt, hidden]``."""
    ids = torch.tensor([prompt], device=target.device)
    positions = torch.arange(len(prompt), device=target.device)[None]
    cache.truncate(0)
    states = last_states(target, ids, positions, None, cache)
    token = int(greedy_ids(target.head(states[:, -1:])))
    _require_token(target, token, 0)
    return token, states[0]


def _step(target: LayeredLM, cache: StaticCache, token: int) -> int:
    ids = torch.tensor([[token]], device=target.device)
    positions = torch.tensor([[cache.lengths[0]]], device=target.device)
    return int(greedy_ids(target.head(last_states(target, ids, positions, None, cache))))


def _require_token(target: LayeredLM, token: int, position: int) -> None:
    require_finite(token != NOT_FINITE, f"the target's logits of new token {position}", target.dtype)


def _until_end(tokens: list[int], eos_ids: AbstractSet[int]) -> list[int]:
    ends = (index for index, token in enumerate(tokens) if token in eos_ids)
    return tokens[: next(ends, len(tokens)) + 1]
