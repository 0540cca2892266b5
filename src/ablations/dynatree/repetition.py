"""Repetition within a text; greedy text that loops makes any draft look good."""


def repeated_share(tokens: list[int], length: int) -> float:
    """Share of the n-grams of `length` tokens in `tokens` that occurred before; 0 without n-grams."""
    grams = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
