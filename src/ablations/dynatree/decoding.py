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
    """What decoding one prompt gave.

    Unless end of sequence cut an accepted path short, ``len(tokens) == sum(accepted) + rounds + 1``:
    every round adds its accepted tokens and one that the target decided, and prefill adds the first.

    Attributes:
        tokens: Emitted token ids, end of sequence included.
        accepted: Draft tokens accepted and emitted in each round (in each step, when autoregressive).
        tested: Levels of each round at which an accepted node had drafted children, up to what was
            emitted; at least `accepted`.
        drafted: Nodes verified below the root in each round.
        draft_forwards: Levels drafted.
        first_seconds: From the start to the first token; all prefills are included.
        draft_seconds: Spent in the drafter, draft prefill left out.
        verify_seconds: Spent in the target's forwards after prefill.
        round_seconds: Spent in the rounds, all of it.
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
        """Rest of the rounds, beside drafter and target; 0 where the clocks make it less."""
        return max(0.0, self.round_seconds - self.draft_seconds - self.verify_seconds)


@dataclass(frozen=True)
class Draft:
    """Who drafts, and how the tree grows.

    Attributes:
        drafter: Proposes the nodes of a level.
        tree: Buffers for the tree; its `max_nodes` is the cap.
        growth: Which of the proposed nodes become the tree.
    """

    drafter: Drafter
    tree: TokenTree
    growth: Growth


def decode_autoregressive(target: LayeredLM, cache: StaticCache, prompt: list[int], limit: int) -> Generation:
    """Greedy decoding, one token per forward.

    Args:
        target: The model.
        cache: Room for prompt and new tokens; its content is forgotten.
        prompt: Token ids.
        limit: Most new tokens; end of sequence stops earlier.

    Returns:
        The generation.

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
    # A step is the forward and little else; the token's value has left the device.
    generation.round_seconds = generation.verify_seconds = perf_counter() - start
    return generation


def decode_speculative(
    target: LayeredLM, cache: StaticCache, draft: Draft, prompt: list[int], limit: int
) -> Generation:
    """Greedy decoding, one target forward per drafted tree; emits the tokens of greedy decoding.

    Args:
        target: The model that decides.
        cache: Room for prompt, new tokens and one tree; its content is forgotten.
        draft: Who drafts, and how large.
        prompt: Token ids.
        limit: Most new tokens; end of sequence stops earlier, inside an accepted path too.

    Returns:
        The generation.

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
        # The bonus token takes one place, so deeper nodes could not be emitted.
        rows = growth.grow(tree, drafter, limit - len(generation.tokens) - 1)
        verdict = verify(target, tree, cache, clock, rows)
        # A path ends where the logits are not finite: no draft proposes what stands for them.
        _require_token(target, verdict.bonus, len(generation.tokens) + len(verdict.path) - 1)
        emitted = _until_end([*tree.tokens[verdict.path[1:]].tolist(), verdict.bonus], target.eos_ids)
        generation.tokens += emitted
        generation.accepted.append(min(len(emitted), len(verdict.path) - 1))
        generation.tested.append(min(len(emitted), verdict.tested))
        generation.drafted.append((tree.size if rows is None else len(rows)) - 1)
        root = emitted[-1]
        drafter.commit(tree, verdict.path, verdict.states)
        growth.learn(tree.levels if rows is None else int(tree.depths[rows[-1]]), len(verdict.path) - 1)
    synchronise(target.device)
    generation.round_seconds = perf_counter() - start
    drafter.require_finite(target.dtype)
    generation.draft_seconds = clock.seconds("draft")
    generation.verify_seconds = clock.seconds("verify")
    generation.draft_forwards = drafter.forwards
    return generation


def _prefill(target: LayeredLM, cache: StaticCache, prompt: list[int]) -> tuple[int, Tensor]:
    """The first token, and the last-layer states of the prompt."""
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


def _require_token(target: LayeredLM, token: int, place: int) -> None:
    require_finite(token != NOT_FINITE, f"the target's logits of new token {place}", target.dtype)


def _until_end(tokens: list[int], eos_ids: AbstractSet[int]) -> list[int]:
    ends = (index for index, token in enumerate(tokens) if token in eos_ids)
    return tokens[: next(ends, len(tokens)) + 1]
