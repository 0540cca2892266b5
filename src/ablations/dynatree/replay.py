"""Speculative decoding against known greedy tokens: every round as it would be, without the target."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.dynatree.decoding import Draft
from ablations.dynatree.verify import agreed, verified_part
from ablations.lm.finite import require_finite
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM


@dataclass(frozen=True)
class Round:
    """One replayed round.

    Attributes:
        size: Rows that the target would verify, the root included.
        accepted: Draft tokens accepted.
        tested: Levels at which the target would choose among children of an accepted node.
        stated: ``[nodes]`` float64, the path probabilities of the verified nodes below the root.
        right: ``[nodes]`` bool, which of them are accepted.
    """

    size: int
    accepted: int
    tested: int
    stated: Tensor
    right: Tensor


def states_of_text(target: LayeredLM, prompt: list[int], greedy: list[int]) -> Tensor:
    """The target's last-layer states that `replay` takes, from one forward over prompt and continuation.

    Raises:
        UserError: one is NaN or infinite.
    """
    ids = torch.tensor([prompt + greedy[:-1]], device=target.device)
    states = last_states(target, ids, torch.arange(ids.shape[1], device=ids.device)[None])[0]
    require_finite(bool(states.isfinite().all()), "the target's last states", target.dtype)
    return states


def replay(draft: Draft, prompt: list[int], greedy: list[int], states: Tensor) -> Iterator[Round]:
    """Go through the rounds in which `draft` would decode `greedy`.

    Greedy verification decides by the target's greedy tokens alone, so acceptance is exact; a round
    emits at most what is left of `greedy`.

    Args:
        draft: Who drafts, and how the tree grows.
        prompt: Token ids.
        greedy: The target's greedy continuation.
        states: ``[prompt + greedy - 1, hidden]``, the target's last-layer states of both but the last token.
    """
    tree, growth = draft.tree, draft.growth
    known = torch.tensor(greedy, device=tree.device)
    draft.drafter.prefill(prompt, states[: len(prompt)])
    growth.start()
    done = 1
    while done < len(greedy):
        tree.plant(greedy[done - 1])
        rows = growth.grow(tree, draft.drafter, len(greedy) - done - 1)
        tokens, parents, depths, ancestors = verified_part(tree, rows)
        # On the accepted path the target says the greedy tokens; off it, nothing that matters.
        right = agreed(tokens, parents, ancestors, known[done + depths])
        path = right.nonzero()[:, 0]
        accepted = len(path) - 1
        yield Round(
            size=len(tokens),
            accepted=accepted,
            tested=accepted + bool((parents[1:] == path[-1]).any()),
            stated=(tree.probabilities if rows is None else tree.probabilities[rows])[1:].clone(),
            right=right[1:],
        )
        root = len(prompt) + done - 1
        known_states = states[root : root + len(path)]
        draft.drafter.commit(tree, path if rows is None else rows[path], known_states)
        growth.learn(int(depths[-1]), accepted)
        done += accepted + 1
