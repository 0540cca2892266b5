"""How much a text repeats itself; greedy text that loops makes any draft look good."""


def repeated_share(tokens: list[int], length: int) -> float:
    """Share of the n-grams of `length` tokens that occurred before in `tokens`; 0 if there is none."""
    grams = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
