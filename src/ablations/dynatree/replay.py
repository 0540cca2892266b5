"""Replay of speculative decoding on known greedy tokens: the same rounds, without forwards of the target."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.dynatree.decoding import Draft
from ablations.dynatree.verify import accepted_nodes, subtree
from ablations.lm.finite import require_finite
from ablations.lm.graphs import last_states
from ablations.lm.layered import LayeredLM


@dataclass(frozen=True)
class Round:
    """One replayed round.

    Attributes:
        size: Rows that the target would verify, the root included.
        accepted: Number of accepted draft tokens.
        tested: Levels at which an accepted node has drafted children.
        stated: ``[nodes]`` float64, path probabilities of the verified nodes below the root.
        is_accepted: ``[nodes]`` bool, which of these nodes are accepted.
    """

    size: int
    accepted: int
    tested: int
    stated: Tensor
    is_accepted: Tensor


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


def replay(draft: Draft, prompt: list[int], greedy: list[int], states: Tensor) -> Iterator[Round]:
    """Yield the rounds in which `draft` would decode `greedy`.

    Greedy verification depends only on the target's greedy tokens, so acceptance is exact. A round emits at
    most the rest of `greedy`.

    Args:
        draft: Drafter, and growth of its trees.
        prompt: Token ids.
        greedy: The target's greedy continuation.
        states: ``[prompt + greedy - 1, hidden]``, result of `states_of_text`.
    """
    tree, growth = draft.tree, draft.growth
    known = torch.tensor(greedy, device=tree.device)
    draft.drafter.prefill(prompt, states[: len(prompt)])
    growth.start()
    done = 1
    while done < len(greedy):
        tree.plant(greedy[done - 1])
        rows = growth.grow(tree, draft.drafter, len(greedy) - done - 1)
        tokens, parents, depths, ancestors = subtree(tree, rows)
        # These are the target's greedy tokens after nodes of the accepted path; other nodes do not matter.
        is_accepted = accepted_nodes(tokens, parents, ancestors, known[done + depths])
        path = is_accepted.nonzero()[:, 0]
        accepted = len(path) - 1
        yield Round(
            size=len(tokens),
            accepted=accepted,
            tested=accepted + bool((parents[1:] == path[-1]).any()),
            stated=(tree.probabilities if rows is None else tree.probabilities[rows])[1:].clone(),
            is_accepted=is_accepted[1:],
        )
        root = len(prompt) + done - 1
        path_states = states[root : root + len(path)]
        draft.drafter.commit(tree, path if rows is None else rows[path], path_states)
        growth.learn(int(depths[-1]), accepted)
        done += accepted + 1
