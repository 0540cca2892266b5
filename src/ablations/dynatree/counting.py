"""From the rounds of one generation to its counts."""

from collections.abc import Sequence
from typing import Any

from ablations.lm.corpus import Window


def counted(
    window: Window,
    tokens: list[int],
    accepted: Sequence[int],
    tested: Sequence[int],
    drafted: Sequence[int],
    draft_forwards: int,
) -> dict[str, Any]:
    """Fields of `DecodingCounts`.

    Args:
        window: The prompt.
        tokens: Emitted token ids.
        accepted: Draft tokens accepted and emitted in each round.
        tested: Levels of each round at which an accepted node had drafted children.
        drafted: Verified nodes below the root in each round.
        draft_forwards: Levels drafted.
    """
    return {
        "document": window.document,
        "kind": window.kind,
        "prompt_tokens": len(window.ids),
        "new_tokens": len(tokens),
        "repeated_4grams": repeated_share(tokens, 4),
        "target_forwards": len(accepted),
        "draft_forwards": draft_forwards,
        "drafted": sum(drafted),
        "accepted": sum(accepted),
        "accepted_per_round": tuple(accepted),
        "drafted_per_round": tuple(drafted),
        "tested_per_depth": rounds_by_depth(tested),
        "accepted_per_depth": rounds_by_depth(accepted, max(tested, default=0)),
    }


def rounds_by_depth(reached: Sequence[int], depths: int | None = None) -> tuple[int, ...]:
    """Rounds that reached at least depth 1, 2, and so on, up to `depths` (None: the deepest reached)."""
    depths = max(reached, default=0) if depths is None else depths
    return tuple(sum(level >= depth for level in reached) for depth in range(1, depths + 1))


def repeated_share(tokens: list[int], length: int) -> float:
    """Share of the n-grams of `length` tokens in `tokens` that occurred before; 0 without n-grams.

    Greedy text that loops makes any draft look good.
    """
    grams = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
