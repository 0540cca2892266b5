"""Greedy decoding of one prompt: autoregressive, and speculative with a linear or tree draft."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import torch

from ablations.dynatree.drafter import Drafter
from ablations.dynatree.grow import grow
from ablations.dynatree.tree import TokenTree
from ablations.dynatree.verify import verify
from ablations.lm.cache import StaticCache
from ablations.lm.layered import LayeredLM
from ablations.lm.timing import stopwatch


@dataclass
class Generation:
    """What decoding one prompt gave.

    Unless end of sequence cut an accepted path short, ``len(tokens) == sum(accepted) + rounds + 1``:
    every round adds its accepted tokens and one that the target decided, and prefill adds the first.

    Attributes:
        tokens: Emitted token ids, end of sequence included.
        accepted: Draft tokens accepted and emitted in each round (in each step, when autoregressive).
        drafted: Nodes verified below the roots.
        draft_forwards: Levels drafted.
        first_seconds: From the start to the first token; all prefills are included.
        draft_seconds: Spent drafting, draft prefill left out.
        verify_seconds: Spent in the target's forwards after prefill.
    """

    tokens: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    drafted: int = 0
    draft_forwards: int = 0
    first_seconds: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0


@dataclass(frozen=True)
class Draft:
    """Who drafts, and how large.

    Attributes:
        drafter: Proposes the nodes of a level.
        tree: Buffers for the tree; its `max_nodes` is the cap.
        depth: Levels below the root; a linear draft of K tokens has depth K and branching 1.
        branching: Children per node.
        tau: Threshold on the path probability; None prunes nothing.
    """

    drafter: Drafter
    tree: TokenTree
    depth: int
    branching: int
    tau: float | None


def decode_autoregressive(target: LayeredLM, cache: StaticCache, prompt: list[int], limit: int) -> Generation:
    """Greedy decoding, one token per forward.

    Args:
        target: The model.
        cache: Room for prompt and new tokens; its content is forgotten.
        prompt: Token ids.
        limit: Most new tokens; end of sequence stops earlier.

    Returns:
        The generation.
    """
    generation = Generation()
    token, generation.first_seconds = stopwatch(target.device, lambda: _prefill(target, cache, prompt))
    generation.tokens.append(token)
    while len(generation.tokens) < limit and token not in target.eos_ids:
        token, seconds = stopwatch(target.device, lambda last=token: _step(target, cache, last))
        generation.verify_seconds += seconds
        generation.tokens.append(token)
        generation.accepted.append(0)
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
    """
    generation = Generation()
    tree, drafter = draft.tree, draft.drafter
    root, target_seconds = stopwatch(target.device, lambda: _prefill(target, cache, prompt))
    _, draft_seconds = stopwatch(target.device, lambda: drafter.prefill(prompt))
    generation.first_seconds = target_seconds + draft_seconds
    generation.tokens.append(root)
    while len(generation.tokens) < limit and root not in target.eos_ids:
        tree.plant(root)
        # The bonus token takes one place, so deeper nodes could not be emitted.
        depth = min(draft.depth, limit - len(generation.tokens) - 1)
        _, seconds = stopwatch(
            target.device, lambda levels=depth: grow(tree, drafter, levels, draft.branching, draft.tau)
        )
        generation.draft_seconds += seconds
        (path, root), seconds = stopwatch(target.device, lambda: verify(target, tree, cache))
        generation.verify_seconds += seconds
        generation.drafted += tree.size - 1
        emitted = _until_end([*tree.tokens[path[1:]].tolist(), root], target.eos_ids)
        generation.tokens += emitted
        generation.accepted.append(min(len(emitted), len(path) - 1))
        root = emitted[-1]
        drafter.commit(tree, path)
    generation.draft_forwards = drafter.forwards
    return generation


def _prefill(target: LayeredLM, cache: StaticCache, prompt: list[int]) -> int:
    ids = torch.tensor([prompt], device=target.device)
    positions = torch.arange(len(prompt), device=target.device)[None]
    cache.truncate(0)
    return int(target.forward(ids, positions, None, cache, last_only=True).argmax())


def _step(target: LayeredLM, cache: StaticCache, token: int) -> int:
    ids = torch.tensor([[token]], device=target.device)
    positions = torch.tensor([[cache.lengths[0]]], device=target.device)
    return int(target.forward(ids, positions, None, cache).argmax())


def _until_end(tokens: list[int], eos_ids: AbstractSet[int]) -> list[int]:
    ends = (index for index, token in enumerate(tokens) if token in eos_ids)
    return tokens[: next(ends, len(tokens)) + 1]
