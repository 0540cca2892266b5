"""Replay of speculative decoding on known greedy tokens: the same rounds, without forwards of the target."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.dynatree.clock import PhaseClock
from ablations.dynatree.counting import counted
from ablations.dynatree.decoding import Draft
from ablations.dynatree.drafters.interface import TimedDrafter
from ablations.dynatree.traces import Trace
from ablations.dynatree.verify import accepted_nodes, subtree
from ablations.lm.finite import NOT_FINITE
from ablations.specs.dynatree.replay import Replay


@dataclass(frozen=True)
class Round:
    """One replayed round.

    Attributes:
        size: Rows that the target would verify, the root included.
        accepted: Number of accepted draft tokens.
        tested: Levels at which an accepted node has drafted children, up to the last emitted token.
        levels: Rows of each level that was drafted from.
        alone: Whether the cheap one of two drafters drafted the round alone.
        stated: ``[nodes]`` float64, path probabilities of the verified nodes below the root.
        conditional: ``[nodes]`` float64, their probabilities after their parents.
        is_tested: ``[nodes]`` bool, which of these nodes have an accepted parent.
        is_accepted: ``[nodes]`` bool, which of these nodes are accepted.
    """

    size: int
    accepted: int
    tested: int
    levels: tuple[int, ...]
    alone: bool
    stated: Tensor
    conditional: Tensor
    is_tested: Tensor
    is_accepted: Tensor


def replay(draft: Draft, trace: Trace, new_tokens: int) -> Iterator[Round]:
    """Yield the rounds in which `draft` would decode a prompt.

    Greedy verification depends only on the target's greedy tokens, so acceptance is exact. A round emits at
    most the rest of them.

    Args:
        draft: Drafter, and growth of its trees.
        trace: The prompt with the target's greedy tokens, or the first of them, and its states.
        new_tokens: Most new tokens, as decoding is told; an end of sequence may have ended the trace before.

    Raises:
        UserError: a probability of the draft is NaN or infinite.
    """
    tree, growth = draft.tree, draft.growth
    drafter = TimedDrafter(draft.drafter, PhaseClock(tree.device))
    prompt, greedy, states = trace.prompt, trace.greedy, trace.states
    # What follows an end of sequence is not known; no draft proposes `NOT_FINITE`.
    unknown = [NOT_FINITE] * (new_tokens - len(greedy) + 1)
    known = torch.tensor(greedy + unknown, device=tree.device)
    drafter.prefill(prompt, states[: len(prompt)])
    growth.start()
    done, forwards = 1, drafter.forwards
    while done < len(greedy):
        tree.plant(greedy[done - 1])
        rows = growth.grow(tree, drafter, new_tokens - done - 1)
        tokens, parents, depths, ancestors = subtree(tree, rows)
        # These are the target's greedy tokens after nodes of the accepted path; other nodes do not matter.
        is_accepted = accepted_nodes(tokens, parents, ancestors, known[done + depths])
        path = is_accepted.nonzero()[:, 0]
        accepted = len(path) - 1
        tested = accepted + bool((parents[1:] == path[-1]).any())
        stated = tree.probabilities if rows is None else tree.probabilities[rows]
        yield Round(
            size=len(tokens),
            accepted=accepted,
            tested=min(tested, len(greedy) - done),
            levels=tuple(tree.depths.bincount()[: drafter.forwards - forwards].tolist()),
            alone=drafter.alone,
            stated=stated[1:].clone(),
            conditional=stated[1:] / stated[parents[1:]],
            is_tested=is_accepted[parents[1:]],
            is_accepted=is_accepted[1:],
        )
        forwards = drafter.forwards
        root = len(prompt) + done - 1
        done += accepted + 1
        if done < len(greedy):
            path_states = states[root : root + len(path)]
            drafter.commit(tree, path if rows is None else rows[path], path_states)
            growth.learn(int(depths[-1]), accepted)
    drafter.require_finite(states.dtype)


def replayed(draft: Draft, trace: Trace, new_tokens: int) -> Replay:
    """What `replay` of a prompt comes to."""
    rounds = list(replay(draft, trace, new_tokens))
    counts = counted(
        trace.window,
        trace.greedy,
        [one.accepted for one in rounds],
        [one.tested for one in rounds],
        [one.size - 1 for one in rounds],
        sum(len(one.levels) for one in rounds),
    )
    return Replay(
        **counts,
        levels_per_round=tuple(one.levels for one in rounds),
        alone_per_round=tuple(one.alone for one in rounds),
    )
